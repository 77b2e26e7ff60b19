/* SPDX-License-Identifier: Apache-2.0 */
/* train.c - the training loop. */
#include "app/save.h"
#include "backend/profile.h"
#include "base/file.h"
#include "base/log.h"
#include "base/plural.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "comm/end.h"
#include "comm/heartbeat.h"
#include "comm/launch.h"
#include "comm/stop.h"
#include "train/limit.h"
#include "train/run.h"
#include "train/run_parts.h"
#include "train/run_state.h"

/* Sums over micro-batches and ranks; doubles, since counts stay far below 2^53. */
struct totals {
    double loss, weight, tokens; /* weight: of the labels */
};

/* This rank's status of a finished micro-batch: a loss that is not finite is reported with
 * its sample. */
static hy3_status check_loss(const struct hy3_run *run, const struct hy3_pass_result *result,
                             int64_t step)
{
    char where[HY3_PATH_MAX], layer[64];

    if (result->bad_sample < 0)
        return HY3_OK;
    hy3_dataset_where(run->data.train_set, result->bad_sample, where, sizeof where);
    if (result->bad_layer < 0)
        snprintf(layer, sizeof layer, "the embedding");
    else if (result->bad_layer >= run->model.shape.layers)
        snprintf(layer, sizeof layer, "the head");
    else
        snprintf(layer, sizeof layer, "layer %d", result->bad_layer);
    HY3_FAIL(HY3_EDIVERGED,
             "step %lld: the loss is not finite; first in the output of %s, sample %s; "
             "no weight was changed by this step. Lower learning_rate or max_grad_norm, or "
             "inspect the sample",
             (long long)step, layer, where);
}

/* Forward and backward of this rank's micro-batches; totals over all ranks. */
static hy3_status accumulate(struct hy3_run *run, int64_t step, struct totals *totals)
{
    int64_t micros = run->config->gradient_accumulation_steps;
    hy3_status status = HY3_OK;
    hy3_status local = hy3_store_zero_grads(run->model.store, hy3_pass_stream(run->pass));
    double sums[3] = {0};

    for (int64_t micro = 0; micro < micros && local == HY3_OK; micro++) {
        struct hy3_pass_result result = {0};

        local = hy3_batches_load(&run->data.train, step, micro, run->data.batch);
        if (local == HY3_OK)
            local = hy3_pass_train(run->pass, run->data.batch, micro == micros - 1, &result);
        if (local != HY3_OK) /* the other ranks are in collective work: no agreement possible */
            hy3_abort(local, "training");
        sums[0] += result.loss_sum;
        sums[1] += result.weight;
        sums[2] += (double)run->data.batch->T;
        if (status == HY3_OK)
            status = check_loss(run, &result, step + 1);
    }
    HY3_AGREE(run->comm, status, "training");
    hy3_allreduce_real(run->comm, sums, 3, MPI_SUM, "summing the loss");
    *totals = (struct totals){.loss = sums[0], .weight = sums[1], .tokens = sums[2]};
    if (totals->weight == 0)
        HY3_FAIL(HY3_EFORMAT, "step %lld has no label token; check the data and max_seq_length",
                 (long long)step + 1);
    return HY3_OK;
}

/* Why the run stops before its last step. */
enum stop { CONTINUE, TIME_LIMIT, SIGNALLED /* + the signal's number */ };

/* Collective. The most urgent reason of any rank. is_late: this rank's view of max_hours. */
static int64_t reason_to_stop(const struct hy3_run *run, bool is_late)
{
    int64_t reason = is_late ? TIME_LIMIT : CONTINUE;

    if (hy3_stop_noted())
        reason = SIGNALLED + hy3_stop_noted();
    hy3_allreduce_int(run->comm, &reason, 1, MPI_MAX, "checking for a stop");
    return reason;
}

/* Mean token loss of the evaluation samples, by their weights, each counted once. *is_complete:
 * false when the run is to stop, which does not wait for the rest of an evaluation. */
static hy3_status evaluate(struct hy3_run *run, double *loss, bool *is_complete)
{
    double sums[2] = {0}, begin = hy3_seconds();

    *is_complete = true;

    for (int64_t step = 0; step < hy3_batches_steps_per_epoch(&run->data.eval); step++) {
        struct hy3_pass_result result = {0};
        hy3_status status;

        if (reason_to_stop(run, hy3_limit_is_near(run)) != CONTINUE) {
            *is_complete = false;
            return HY3_OK;
        }
        status = hy3_batches_load(&run->data.eval, step, 0, run->data.eval_batch);

        if (status == HY3_OK)
            status = hy3_pass_evaluate(run->pass, run->data.eval_batch, &result);
        if (status != HY3_OK)
            hy3_abort(status, "evaluating");
        sums[0] += result.loss_sum;
        sums[1] += result.weight;
    }
    hy3_allreduce_real(run->comm, sums, 2, MPI_SUM, "summing the evaluation loss");
    if (sums[1] == 0)
        HY3_FAIL(HY3_EFORMAT, "the evaluation data has no label token");
    *loss = sums[0] / sums[1];
    run->limit.evaluation = hy3_seconds() - begin;
    return HY3_OK;
}

static bool evaluates_at(const struct hy3_run *run, int64_t step)
{
    int64_t every = hy3_config_interval(run->config->eval_steps, run->data.steps);

    if (!run->data.eval.dataset)
        return false;
    return step == run->data.steps || step % every == 0;
}

/* The trained model or adapter into output_dir. can_stop: a later run can do it instead. */
static hy3_status save_result(struct hy3_run *run, bool can_stop)
{
    struct hy3_save save;

    HY3_AGREE(run->comm, hy3_lock_check(run->lock), "saving");
    HY3_AGREE(run->comm, hy3_save_options(run->config, &run->model, run->config->output_dir, &save),
              "saving");
    save.keeps_on = !can_stop;
    return hy3_save_trained(&save, &run->optimizer);
}

/* Collective. Whether the run stops after `step` steps. */
static int64_t reason_after(const struct hy3_run *run, int64_t step)
{
    return reason_to_stop(
        run, hy3_limit_stops(run, evaluates_at(run, step + 1), step + 1 == run->data.steps));
}

static const char stops_after_step[] = "ending after this step, with a checkpoint";

/* Whether the run can go on from `step`, when no save is under way. */
static bool is_saved(const struct hy3_run *run, int64_t step)
{
    return step == run->restored.step || step == hy3_checkpoints_newest(run->checkpoints);
}

/* The command that goes on; with none the same one starts over, but for a requeued job. */
static const char *what_continues(const struct hy3_config *config)
{
    if (strcmp(config->resume_from_checkpoint, "none") != 0)
        return "the same command";
    return getenv("SLURM_JOB_ID") ? "this job requeued, or resume_from_checkpoint = auto,"
                                  : "resume_from_checkpoint = auto, and not none,";
}

/* Saves a checkpoint and ends the run early. */
static hy3_status stop(struct hy3_run *run, int64_t step, int64_t reason)
{
    const char *why = reason == TIME_LIMIT ? "max_hours" : hy3_stop_name((int)(reason - SIGNALLED));

    HY3_TRY(hy3_checkpoints_wait(run->checkpoints));
    if (!is_saved(run, step))
        HY3_TRY(hy3_run_state_save(run, true));
    HY3_TRY(hy3_checkpoints_wait(run->checkpoints));
    /* save_failure = continue */
    HY3_FAIL(HY3_STOPPED, "stopped by %s after step %lld of %lld%s; %s continues from %s", why,
             (long long)step, (long long)run->data.steps,
             is_saved(run, step) ? "" : ", which could not be saved", what_continues(run->config),
             is_saved(run, step) ? "there" : "the checkpoint before");
}

static hy3_status train_step(struct hy3_run *run, int64_t step)
{
    struct hy3_report_step s = {.step = step + 1};
    struct totals totals;
    double begin = hy3_seconds();

    hy3_heartbeat("reading samples", step + 1, -1);
    HY3_TRY(accumulate(run, step, &totals));
    hy3_heartbeat("update", step + 1, -1);
    s.learning_rate = hy3_schedule_rate(&run->schedule, step);
    HY3_TRY(hy3_sharded_optimizer_step(&run->optimizer, hy3_pass_stream(run->pass), step + 1,
                                       totals.weight, run->config->max_grad_norm, s.learning_rate,
                                       &s.grad_norm));
    s.epoch = (double)(step + 1) / (double)run->data.steps_per_epoch;
    s.loss = totals.loss / totals.weight;
    s.step_tokens = (int64_t)totals.tokens;
    run->limit.step = hy3_seconds() - begin;
    if (evaluates_at(run, step + 1))
        HY3_TRY(evaluate(run, &s.eval_loss, &s.has_eval));
    return hy3_agree(run->comm, hy3_report_step(run->report, &s), "writing the log");
}

/* All steps, with a checkpoint every save_steps and after the last: more steps go on from there. */
static hy3_status train_steps(struct hy3_run *run)
{
    const int64_t first = run->restored.step;
    const int64_t every = hy3_config_interval(run->config->save_steps, run->data.steps);
    int64_t reason = reason_after(run, first);

    hy3_stop_announce(stops_after_step);
    for (int64_t step = first; step < run->data.steps; step++) {
        if (reason != CONTINUE)
            return stop(run, step, reason);
        HY3_TRY(train_step(run, step));
        if (step == first) /* without the one-time work of the first step */
            hy3_profile_reset();
        if ((step + 1) % every == 0) {
            hy3_heartbeat("checkpoint", step + 1, -1);
            HY3_TRY(hy3_run_state_save(run, false));
        }
        reason = reason_after(run, step + 1);
    }
    if (run->data.steps > first && run->data.steps % every != 0 && !run->config->save_only_model) {
        hy3_heartbeat("checkpoint", run->data.steps, -1);
        HY3_TRY(hy3_run_state_save(run, true));
    }
    return hy3_checkpoints_wait(run->checkpoints);
}

/* The checkpoint of the last step is there: what does not fit is written by the next run. One that
 * has done no step goes on, or the result were never written. */
static hy3_status write_result(struct hy3_run *run)
{
    int64_t last = run->data.steps, reason = CONTINUE;
    bool can_stop = is_saved(run, last);

    hy3_stop_announce(can_stop ? "ending, with the checkpoint of the last step"
                               : "ending when the result is written");
    if (can_stop)
        reason = reason_to_stop(run, run->restored.step < last && hy3_limit_stops_write(run));
    if (run->restored.step < last)
        hy3_stop_deadline(run->limit.end);
    if (reason != CONTINUE)
        return stop(run, last, reason);
    return save_result(run, can_stop);
}

/* From here on output_dir changes. */
static hy3_status begin(struct hy3_run *run)
{
    struct hy3_run_facts facts = hy3_run_state_facts(run);

    HY3_AGREE(run->comm, hy3_lock_check(run->lock), "opening the output directory");
    HY3_TRY(hy3_output_dir_begin(&run->dir, &facts, run->restored.step));
    HY3_AGREE(run->comm,
              hy3_report_open(run->config->output_dir, run->data.steps,
                              hy3_config_interval(run->config->logging_steps, run->data.steps),
                              hy3_rank(run->comm) == 0, &run->restored, &run->report),
              "opening the log");
    return HY3_OK;
}

hy3_status hy3_run_train(struct hy3_run *run)
{
    if (!hy3_run_has_work(run))
        return HY3_OK;
    HY3_TRY(begin(run));
    HY3_TRY(train_steps(run));
    hy3_profile_log();
    HY3_TRY(hy3_run_memory_log(&run->model, &run->memory));
    HY3_TRY(write_result(run));
    if (run->config->plot_loss)
        hy3_report_plot(run->report);
    HY3_TRY(hy3_output_dir_finish(&run->dir, run->data.steps));
    hy3_log(HY3_LOG_INFO, "done: %lld step%s, %.0f tokens/s; the %s is in '%s'",
            (long long)run->data.steps, hy3_s(run->data.steps), hy3_report_rate(run->report),
            run->model.params->lora.rank > 0 ? "adapter" : "model", run->config->output_dir);
    return HY3_OK;
}
