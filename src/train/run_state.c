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
                                   .identity = run->identity};
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

hy3_status hy3_run_state_save(struct hy3_run *run, bool with_state)
{
    struct hy3_state_info info = describe(run);

    HY3_AGREE(run->comm, hy3_lock_check(run->lock), "saving");
    return hy3_checkpoints_save(run->checkpoints, &info, with_state);
}
