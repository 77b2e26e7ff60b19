/* SPDX-License-Identifier: Apache-2.0 */
/* run_state.c - the state of a run in the form that checkpoints store. */
#include "train/run_state.h"

#include "base/log.h"
#include "comm/agree.h"
#include "train/run_parts.h"

static struct hy3_state_info describe(const struct hy3_run *run)
{
    const struct hy3_config *c = run->config;
    struct hy3_report_state r = {0};

    if (run->report)
        r = hy3_report_state(run->report);
    return (struct hy3_state_info){.step = r.step,
                                   .global_batch = hy3_batches_global(&run->data.train),
                                   .seed = c->seed,
                                   .total_steps = run->data.steps,
                                   .tokens = r.tokens,
                                   .data_samples = run->data.train.count,
                                   .data_fingerprint = hy3_run_data_fingerprint(&run->data),
                                   .log_loss = r.loss_sum,
                                   .log_steps = r.loss_steps,
                                   .log_tokens = r.tokens_since,
                                   .elapsed = r.elapsed,
                                   .identity = run->identity,
                                   .best = run->best};
}

struct hy3_best_rules hy3_run_state_rules(const struct hy3_run *run)
{
    const struct hy3_config *c = run->config;

    return (struct hy3_best_rules){.greater = c->greater_is_better,
                                   .patience = c->early_stopping_patience,
                                   .threshold = c->early_stopping_threshold};
}

static uint64_t eval_data(const struct hy3_run *run)
{
    return run->data.eval.dataset ? hy3_dataset_fingerprint(run->data.eval.dataset) : 0;
}

/* What an earlier part of the run has found, unless it was on other data. */
static void restore_best(struct hy3_run *run, const struct hy3_state_info *info)
{
    run->best = info->best;
    run->best.data = eval_data(run);
    if (info->best.evaluated == 0 || info->best.data == run->best.data)
        return;
    run->best = (struct hy3_state_best){.evaluated = info->best.evaluated, .data = run->best.data};
    *hy3_checkpoints_best(run->checkpoints) = run->best;
    if (hy3_config_chooses(run->config))
        hy3_log(HY3_LOG_WARN,
                "the evaluation data is not that of the run so far: its best metric "
                "is forgotten, early stopping counts anew");
}

struct hy3_run_facts hy3_run_state_facts(const struct hy3_run *run)
{
    struct hy3_state_info info = describe(run);

    return (struct hy3_run_facts){.steps = info.total_steps,
                                  .samples = info.data_samples,
                                  .global_batch = info.global_batch,
                                  .data = info.data_fingerprint,
                                  .base = strtoull(info.identity.fingerprint, NULL, 16)};
}

hy3_status hy3_run_state_restore(struct hy3_run *run)
{
    struct hy3_state_info expected = describe(run), info = {0};

    HY3_TRY(hy3_checkpoints_open(run->config, &run->model, &run->optimizer, &run->dir,
                                 &run->checkpoints));
    HY3_TRY(hy3_checkpoints_resume(run->checkpoints, &expected, &info));
    run->restored = (struct hy3_report_state){.step = info.step,
                                              .tokens = info.tokens,
                                              .elapsed = info.elapsed,
                                              .loss_sum = info.log_loss,
                                              .loss_steps = info.log_steps,
                                              .tokens_since = info.log_tokens};
    restore_best(run, &info);
    if (info.step > run->data.steps) { /* of a named checkpoint elsewhere */
        run->dir.decision = HY3_BEHIND;
        run->dir.newest = info.step;
        hy3_log(HY3_LOG_WARN,
                "'%s' has done %lld steps, more than the %lld that max_steps or num_train_epochs "
                "ask for: nothing is done, and no model is written in '%s'",
                run->config->resume_from_checkpoint, (long long)info.step,
                (long long)run->data.steps, run->config->output_dir);
    }
    return HY3_OK;
}

hy3_status hy3_run_state_save(struct hy3_run *run, bool with_state, const double *metric)
{
    const struct hy3_best_rules rules = hy3_run_state_rules(run);
    const struct hy3_state_best *kept = hy3_checkpoints_best(run->checkpoints);
    struct hy3_state_info info;

    HY3_AGREE(run->comm, hy3_lock_check(run->lock), "saving");
    HY3_TRY(hy3_checkpoints_wait(run->checkpoints)); /* the best one is known then */
    info = describe(run);
    info.best.checkpoint = kept->checkpoint;
    info.best.checkpoint_metric = kept->checkpoint_metric;
    if (metric)
        hy3_best_note_checkpoint(&info.best, &rules, info.step, *metric);
    return hy3_checkpoints_save(run->checkpoints, &info, with_state);
}

hy3_status hy3_run_state_load_best(struct hy3_run *run)
{
    struct hy3_state_info expected = describe(run);

    return hy3_checkpoints_load_best(run->checkpoints, &expected);
}
