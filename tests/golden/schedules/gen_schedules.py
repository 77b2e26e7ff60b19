# SPDX-License-Identifier: Apache-2.0
"""Answers for the learning-rate schedules and for early stopping, by transformers' own code.

    python gen_schedules.py >schedules.json

Needs torch and transformers 5.24. The tests need no Python: they read schedules.json.
"""
import json
import sys
import warnings

import torch
import transformers
from transformers import EarlyStoppingCallback, TrainerControl, TrainerState, TrainingArguments

warnings.simplefilter("ignore")
TOTAL, LR = 40, 2e-4


def rates(name, warmup, kwargs, total=TOTAL):
    """The rate of each step: what the optimizer holds when it steps."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=LR)
    schedule = transformers.get_scheduler(name, optimizer, num_warmup_steps=warmup, num_training_steps=total,
                                          scheduler_specific_kwargs=kwargs)
    out = []
    for step in range(total):
        out.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step + 1 < total:  # polynomial divides by 0 after a warmup of all steps
            schedule.step()
    return out


def cases():
    for warmup in (0, 1, 7, TOTAL):
        for cycles in (None, 1, 2, 3, 5):
            yield "cosine_with_restarts", warmup, {} if cycles is None else {"num_cycles": cycles}
        for cycles in (0.25, 1.0, 1.5):
            yield "cosine", warmup, {"num_cycles": cycles}
            yield "cosine_with_min_lr", warmup, {"num_cycles": cycles, "min_lr": 2e-5}
        for power in (None, 0.5, 2.0):
            for end in (None, 0.0, 1e-5):
                given = {"power": power, "lr_end": end}
                yield "polynomial", warmup, {k: v for k, v in given.items() if v is not None}
        for timescale in (None, 1, 25, 10000):
            yield "inverse_sqrt", warmup, {} if timescale is None else {"timescale": timescale}
        for minimum in ({"min_lr_rate": 0.1}, {"min_lr": 1e-6}, {"min_lr_rate": 0.0, "num_cycles": 1.0}):
            for rate in (None, 0.0, 0.2):
                yield "cosine_warmup_with_min_lr", warmup, \
                    minimum if rate is None else dict(minimum, warmup_lr_rate=rate)
        yield "warmup_stable_decay", warmup, {"num_decay_steps": 10}
        for warmup_type in ("linear", "cosine", "1-sqrt"):
            for decay_type in ("linear", "cosine", "1-sqrt"):
                yield "warmup_stable_decay", warmup, {"num_decay_steps": 12, "warmup_type": warmup_type,
                                                      "decay_type": decay_type, "min_lr_ratio": 0.05}
        yield "warmup_stable_decay", warmup, {"num_decay_steps": 8, "num_stable_steps": 11, "min_lr_ratio": 0.2}
        yield "warmup_stable_decay", warmup, {"num_decay_steps": 8, "num_stable_steps": 0, "num_cycles": 1.5}
        yield "warmup_stable_decay", warmup, {"num_decay_steps": 60}


def stopping(metrics, patience, threshold, greater):
    """What Trainer does with the metrics of consecutive evaluations: trainer.py calls the callback,
    then _determine_best_metric."""
    args = TrainingArguments(output_dir="unused", eval_strategy="steps", eval_steps=1, save_steps=1,
                             metric_for_best_model="loss", greater_is_better=greater, use_cpu=True, report_to=[])
    state, control = TrainerState(), TrainerControl()
    callback = EarlyStoppingCallback(patience, threshold)
    trainer = transformers.Trainer.__new__(transformers.Trainer)
    trainer.args, trainer.state = args, state
    rows = []
    for step, metric in enumerate(metrics, 1):
        state.global_step = step
        values = {"eval_loss": metric}
        callback.on_evaluate(args, state, control, values)
        is_new = trainer._determine_best_metric(values, None)
        rows.append({"is_new": bool(is_new), "best": state.best_metric, "best_step": state.best_global_step,
                     "stale": callback.early_stopping_patience_counter,
                     "stops": bool(control.should_training_stop)})
    return rows


SERIES = [[2.0, 1.5, 1.4, 1.45, 1.39, 1.5, 1.6, 1.2], [1.0, 1.0, 1.0, 1.0], [3.0, 2.99, 2.98, 2.97, 2.0, 2.5],
          [1.0, 2.0, 3.0, 0.5], [2.0, 1.0, 1.5, 0.999, 0.5, 0.5]]


def main():
    tables = [{"type": n, "warmup_steps": w, "total_steps": TOTAL, "learning_rate": LR, "kwargs": k,
               "lr": rates(n, w, k)} for n, w, k in cases()]
    stops = [{"metrics": m, "patience": p, "threshold": t, "greater_is_better": g, "rows": stopping(m, p, t, g)}
             for m in SERIES for p in (1, 2, 3) for t in (0.0, 0.015, 0.1) for g in (False, True)]
    out = sys.stdout
    out.write('{"transformers": "%s",\n"stops": [\n' % transformers.__version__)
    out.write(",\n".join(json.dumps(s) for s in stops))
    out.write('\n],\n"tables": [\n')
    out.write(",\n".join(json.dumps(t) for t in tables))
    out.write("\n]}\n")


main()
