#!/usr/bin/env python3
"""Answers for training options that case a does not have: rsLoRA, LoRA+, modules_to_save, label
smoothing, NEFTune, a weight for the loss of each message.

    python gen_options.py --case a --out options

The runs are those of PEFT and transformers on the model of the case: create_loraplus_optimizer,
LabelSmoother with num_items_in_batch, activate_neftune, whose noise is given: the uniform numbers
are drawn by the Philox 4x32-10 written here. Needs torch 2.15, transformers 5.24, peft 0.21.2; one
thread, a minute. README.md has the list of files.
"""
import argparse
import json
import math
import os
import random
import shutil

import gen_golden as golden
import torch
from peft import LoraConfig, get_peft_model
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import save_file
from transformers.integrations.neftune import activate_neftune
from transformers.trainer_pt_utils import LabelSmoother

DROPOUT, NOISE = 3, 9  # purposes of random numbers
MASK = 0xFFFFFFFF


def philox(seed, purpose, high, low):
    """Four words of the key (seed, purpose) and the counter (high, low)."""
    key = [seed & MASK, (seed >> 32 & MASK) ^ (purpose * 0x9E3779B1 & MASK)]
    c = [low & MASK, low >> 32, high & MASK, high >> 32]
    for _ in range(10):
        p, q = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [q >> 32 ^ c[1] ^ key[0], q & MASK, p >> 32 ^ c[3] ^ key[1], p & MASK]
        key = [key[0] + 0x9E3779B9 & MASK, key[1] + 0xBB67AE85 & MASK]
    return c


def uniform(seed, step, sample, length, width):
    """[1, length, width] in [0, 1), by the place of each element."""
    first = philox(seed, DROPOUT, step, sample)
    key = first[0] << 32 | first[1]
    rows = []
    for t in range(length):
        row = []
        for i in range(0, width, 4):
            row += philox(seed, NOISE, (key + t) & (1 << 64) - 1, i // 4)
        rows.append([(word >> 8) * 2.0 ** -24 for word in row[:width]])
    return torch.tensor([rows], dtype=torch.float32)


def load_rows(case):
    with open(os.path.join(case, "dataset_tokens.json"), encoding="utf-8") as fh:
        return json.load(fh)["samples"]


def weigh(rows, case, out):
    """Gives the answers of the conversations weights in turn, in a copy of the file; the token
    weights of each row. The labels of an answer are a run; answers may be cut off at the end."""
    given, turn, weights = (2.0, 0.5, 0.0, 1.25, None), 0, []
    with open(os.path.join(case, "dataset.jsonl"), encoding="utf-8") as fh:
        lines = [json.loads(line) for line in fh]
    for line, row in zip(lines, rows):
        answers = []
        for message in line["messages"]:
            if message["role"] == "assistant":
                answers.append(1.0 if given[turn % 5] is None else given[turn % 5])
                if given[turn % 5] is not None:
                    message["loss_weight"] = given[turn % 5]
                turn += 1
        run, before, row_weights = -1, golden.IGNORE, []
        for label in row["labels"]:
            run += label != golden.IGNORE and before == golden.IGNORE
            row_weights.append(answers[run] if label != golden.IGNORE else 0.0)
            before = label
        weights.append(row_weights)
    with open(os.path.join(out, "weighted.jsonl"), "w", encoding="utf-8") as fh:
        fh.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    return weights


def collate(rows):
    width = max(len(r["ids"]) for r in rows)

    def pad(r, key, value):
        return r[key] + [value] * (width - len(r[key]))

    return {"input_ids": torch.tensor([pad(r, "ids", 0) for r in rows]),
            "labels": torch.tensor([pad(r, "labels", golden.IGNORE) for r in rows]),
            "attention_mask": torch.tensor([[1] * len(r["ids"]) + [0] * (width - len(r["ids"])) for r in rows])}


def make_model(case, seed, **lora):
    """The PEFT model; B is small and random instead of zero, so that both factors matter at once."""
    torch.manual_seed(seed)
    base = golden.load_model(os.path.join(case, "inner"), torch.float32)
    model = get_peft_model(base, LoraConfig(r=4, lora_alpha=8, lora_dropout=0.0, bias="none",
                                            task_type="CAUSAL_LM", **lora))
    model.train()
    g = torch.Generator().manual_seed(seed + 1)
    for n, p in model.named_parameters():
        if "lora_B" in n:
            p.data.copy_(0.02 * torch.randn(p.shape, generator=g))
    return model


def store(model, directory):
    shutil.rmtree(directory, ignore_errors=True)
    model.save_pretrained(directory)
    readme, path = os.path.join(directory, "README.md"), os.path.join(directory, "adapter_config.json")
    if os.path.exists(readme):
        os.remove(readme)
    with open(path, encoding="utf-8") as fh:
        config = json.load(fh)
    config["base_model_name_or_path"] = "inner"
    config["target_modules"] = sorted(config["target_modules"])
    golden.write_json(path, config, indent=2)


class GivenNoise:
    """Tensor.uniform_ with the numbers of the sample that is worked on."""

    def __init__(self, seed):
        self.seed, self.place, self.bounds = seed, None, []

    def __enter__(self):
        self.saved, noise = torch.Tensor.uniform_, self

        def uniform_(tensor, low, high):
            noise.bounds.append(float(high))
            drawn = uniform(noise.seed, *noise.place, tensor.shape[1], tensor.shape[2])
            return tensor.copy_(low + (high - low) * drawn)

        torch.Tensor.uniform_ = uniform_
        return self

    def __exit__(self, *_):
        torch.Tensor.uniform_ = self.saved


def train(model, opt, plan, rows, hp, smoothing=0.0, noise=None):
    """The steps of plan: [micro-batches of sample numbers]; the log of gen_golden.py."""
    smoother = LabelSmoother(epsilon=smoothing)
    sch = golden.make_schedule(opt, hp["lr_scheduler_type"], hp["warmup_steps"], len(plan),
                               hp["min_lr"] / hp["learning_rate"])
    params = [p for p in model.parameters() if p.requires_grad]
    log, sample = [], 0
    for step, micros in enumerate(plan):
        batches = [collate([rows[i] for i in m]) for m in micros]
        n = sum(int((b["labels"][:, 1:] != golden.IGNORE).sum()) for b in batches)
        opt.zero_grad(set_to_none=True)
        loss = 0.0
        for b in batches:
            if noise:
                noise.place = (step, sample)
            sample += len(b["input_ids"])
            out = model(input_ids=b["input_ids"], attention_mask=b["attention_mask"])
            part = smoother(out, b["labels"], shift_labels=True, num_items_in_batch=torch.tensor(n))
            part.backward()
            loss += float(part.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(params, hp["max_grad_norm"]))
        rates = [group["lr"] for group in opt.param_groups]
        opt.step()
        sch.step()
        log.append({"step": step + 1, "lr": rates[0], "rates": rates, "loss": loss, "grad_norm": norm,
                    "loss_tokens": n, "micro_batches": micros})
    return log


def hyper(lr, steps):
    return dict(golden.BASE_HP, learning_rate=lr, min_lr=lr / 10, weight_decay=0.1,
                warmup_steps=math.ceil(0.1 * steps), seed=42)


def merged(case, adapter, names):
    """These tensors after PEFT has merged the adapter into the bf16 model."""
    from peft import PeftModel
    base = golden.load_model(os.path.join(case, "inner"), torch.bfloat16)
    state = PeftModel.from_pretrained(base, adapter).merge_and_unload().state_dict()
    return {n: state[n].contiguous().clone() for n in names}


def loraplus(case, out, rows, plan):
    hp = hyper(2e-3, len(plan))
    model = make_model(case, 11, use_rslora=True, target_modules=["q_proj", "v_proj", "down_proj"])
    directory = os.path.join(out, "loraplus")
    store(model, os.path.join(directory, "initial"))
    opt = create_loraplus_optimizer(model, torch.optim.AdamW, lr=hp["learning_rate"], loraplus_lr_ratio=4.0,
                                    loraplus_weight_decay=hp["weight_decay"], betas=tuple(hp["betas"]),
                                    eps=hp["eps"], foreach=False)
    log = train(model, opt, plan, rows, hp)
    store(model, os.path.join(directory, "final"))
    golden.write_json(os.path.join(out, "train_loraplus.json"),
                      {"hyper": hp, "loraplus_lr_ratio": 4.0, "steps": log}, indent=1)
    names = ["model.layers.1.self_attn.q_proj.weight", "model.layers.0.mlp.down_proj.weight"]
    save_file(merged(case, os.path.join(directory, "final"), names), os.path.join(out, "merged_loraplus.safetensors"))
    return log


def saved(case, out, rows, plan):
    hp = hyper(2e-3, len(plan))
    model = make_model(case, 21, target_modules=["q_proj", "v_proj"], modules_to_save=["embed_tokens", "lm_head"])
    directory = os.path.join(out, "saved")
    store(model, os.path.join(directory, "initial"))
    opt = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=hp["learning_rate"],
                            betas=tuple(hp["betas"]), eps=hp["eps"], weight_decay=hp["weight_decay"], foreach=False)
    with GivenNoise(hp["seed"]) as noise:
        hook = activate_neftune(model, 5.0)
        log = train(model, opt, plan, rows, hp, smoothing=0.1, noise=noise)
        hook.remove()
    store(model, os.path.join(directory, "final"))
    names = ["model.embed_tokens.weight", "lm_head.weight"]
    result = merged(case, os.path.join(directory, "final"), names)
    golden.write_json(os.path.join(out, "train_saved.json"),
                      {"hyper": hp, "label_smoothing_factor": 0.1, "neftune_noise_alpha": 5.0,
                       "largest_noise": max(noise.bounds), "steps": log,
                       "merged_bf16_sha256": {n: golden.digest(t) for n, t in result.items()}}, indent=1)
    return log


def weighted(case, out, rows, plan):
    """Loss: the weighted sum over the step's label tokens, divided by the sum of their weights."""
    hp = hyper(2e-3, len(plan))
    weights = weigh(rows, case, out)
    model = make_model(case, 31, target_modules=["q_proj", "v_proj", "down_proj"])
    directory = os.path.join(out, "weighted")
    store(model, os.path.join(directory, "initial"))
    params = [p for p in model.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(params, lr=hp["learning_rate"], betas=tuple(hp["betas"]), eps=hp["eps"],
                            weight_decay=hp["weight_decay"], foreach=False)
    sch = golden.make_schedule(opt, hp["lr_scheduler_type"], hp["warmup_steps"], len(plan),
                               hp["min_lr"] / hp["learning_rate"])
    log = []
    for step, micros in enumerate(plan):
        whole = sum(sum(weights[i][1:]) for micro in micros for i in micro)
        opt.zero_grad(set_to_none=True)
        loss = 0.0
        for i in (i for micro in micros for i in micro):
            batch = collate([rows[i]])
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            each = torch.nn.functional.cross_entropy(logits[0, :-1], batch["labels"][0, 1:],
                                                     ignore_index=golden.IGNORE, reduction="none")
            part = (each * torch.tensor(weights[i][1:])).sum() / whole
            part.backward()
            loss += float(part.detach())
        norm = float(torch.nn.utils.clip_grad_norm_(params, hp["max_grad_norm"]))
        rate = opt.param_groups[0]["lr"]
        opt.step()
        sch.step()
        log.append({"step": step + 1, "lr": rate, "loss": loss, "grad_norm": norm, "micro_batches": micros})
    store(model, os.path.join(directory, "final"))
    golden.write_json(os.path.join(out, "train_weighted.json"),
                      {"dataset": "options/weighted.jsonl", "hyper": hp, "steps": log}, indent=1)
    return log


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--case", default="a")
    ap.add_argument("--out", default="options")
    a = ap.parse_args()
    rows = load_rows(a.case)
    os.makedirs(a.out, exist_ok=True)
    assert philox(0, 0, 0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]  # Random123's kat_vectors
    log = loraplus(a.case, a.out, rows, golden.plan_steps(len(rows), 6, 2, 2, random.Random(7)))
    print("rsLoRA and LoRA+", [round(s["loss"], 4) for s in log])
    log = saved(a.case, a.out, rows, golden.plan_steps(len(rows), 6, 4, 1, random.Random(8)))
    print("whole modules", [round(s["loss"], 4) for s in log])
    log = weighted(a.case, a.out, rows, golden.plan_steps(len(rows), 6, 2, 2, random.Random(9)))
    print("weights", [round(s["loss"], 4) for s in log])


if __name__ == "__main__":
    main()
