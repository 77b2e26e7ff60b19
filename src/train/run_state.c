/* SPDX-License-Identifier: Apache-2.0 */
/* run_state.c - the state of a run in the form that checkpoints store. */
#include "train/run_state.h"

#include "app/identity.h"
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
                                   .data_fingerprint = hy3_dataset_fingerprint(run->data.train_set),
                                   .log_loss = r.loss_sum,
                                   .log_steps = r.loss_steps,
                                   .log_tokens = r.tokens_since,
                                   .elapsed = r.elapsed,
                                   .identity = run->identity};
}

hy3_status hy3_run_state_restore(struct hy3_run *run)
{
    const struct hy3_config *c = run->config;
    struct hy3_state_info expected, info = {0};
    struct hy3_report_state from = {0};
    bool found;

    HY3_TRY(hy3_identity_of(&run->model, c->model_name_or_path, &run->identity));
    expected = describe(run);
    HY3_TRY(hy3_checkpoints_open(c, &run->model, &run->optimizer, &run->checkpoints));
    HY3_TRY(hy3_checkpoints_resume(run->checkpoints, &expected, &info, &found));
    if (found)
        from = (struct hy3_report_state){.step = info.step,
                                         .tokens = info.tokens,
                                         .elapsed = info.elapsed,
                                         .loss_sum = info.log_loss,
                                         .loss_steps = info.log_steps,
                                         .tokens_since = info.log_tokens};
    run->first_step = from.step;
    return hy3_agree(run->comm,
                     hy3_report_open(c->output_dir, run->data.steps, c->logging_steps,
                                     run->model.layout.world.rank == 0, &from, &run->report),
                     "opening the log");
}

hy3_status hy3_run_state_save(struct hy3_run *run)
{
    struct hy3_state_info info = describe(run);

    HY3_AGREE(run->comm, hy3_lock_check(run->lock), "saving");
    return hy3_checkpoints_save(run->checkpoints, &info);
}
