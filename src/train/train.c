/* SPDX-License-Identifier: Apache-2.0 */
/* train.c - the training loop. */
#include "app/save.h"
#include "backend/profile.h"
#include "base/file.h"
#include "base/log.h"
#include "base/plural.h"
#include "comm/abort.h"
#include "comm/agree.h"
#include "comm/comm.h"
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
        snprintf(layer, sizeof layer, "layer %d%s", result->bad_layer,
                 result->is_earlier ? " or before" : "");
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

    if (local != HY3_OK) /* as below */
        hy3_abort(local, "training");
    for (int64_t micro = 0; micro < micros; micro++) {
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
    hy3_broadcast(run->comm, 0, loss, sizeof *loss, "summing the evaluation loss");
    run->limit.evaluation = hy3_seconds() - begin;
    return HY3_OK;
}

static bool evaluates_at(const struct hy3_run *run, int64_t step)
{
    if (!run->data.eval.dataset)
        return false;
    return step == run->data.steps || step % run->evaluates_every == 0;
}

/* An evaluation after a step. */
struct evaluation {
    bool is_done; /* false: there was none, or it was cut short */
    bool is_best; /* so far */
    double loss;
};

/* Evaluates, and notes what that means. */
static hy3_status judge(struct hy3_run *run, int64_t step, struct evaluation *e)
{
    const struct hy3_best_rules rules = hy3_run_state_rules(run);

    HY3_TRY(evaluate(run, &e->loss, &e->is_done));
    if (e->is_done)
        e->is_best = hy3_best_note(&run->best, &rules, step, e->loss);
    return HY3_OK;
}

/* Whether a checkpoint is due after `step`, before the end. */
static bool saves_at(const struct hy3_run *run, int64_t step, const struct evaluation *e)
{
    if (run->config->save_strategy == HY3_SAVE_STRATEGY_best)
        return e->is_best;
    return step % run->saves_every == 0;
}

/* Whether early stopping ends the run here. */
static bool ends_early(const struct hy3_run *run)
{
    const struct hy3_best_rules rules = hy3_run_state_rules(run);

    return run->data.eval.dataset && hy3_best_ends_run(&run->best, &rules);
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
        HY3_TRY(hy3_run_state_save(run, true, NULL));
    HY3_TRY(hy3_checkpoints_wait(run->checkpoints));
    /* save_failure = continue */
    HY3_FAIL(HY3_STOPPED, "stopped by %s after step %lld of %lld%s; %s continues from %s", why,
             (long long)step, (long long)run->data.steps,
             is_saved(run, step) ? "" : ", which could not be saved", what_continues(run->config),
             is_saved(run, step) ? "there" : "the checkpoint before");
}

/* Adds what the profile has counted, times `sign`: -1 before a step and 1 after it leave what the
 * step took, without evaluations and checkpoints. */
static void count_kinds(struct hy3_run *run, double sign)
{
    double kinds[HY3_PROFILE_KINDS];

    if (!run->profiles)
        return;
    hy3_profile_seconds(kinds);
    for (int i = 0; i < HY3_PROFILE_KINDS; i++)
        run->time.kinds[i] += sign * kinds[i];
}

static hy3_status train_step(struct hy3_run *run, int64_t step, struct evaluation *e)
{
    struct hy3_report_step s = {.step = step + 1};
    struct totals totals;
    double begin = hy3_seconds(), middle;

    count_kinds(run, -1);
    hy3_heartbeat("reading samples", step + 1, -1);
    HY3_TRY(accumulate(run, step, &totals));
    middle = hy3_seconds();
    hy3_heartbeat("update", step + 1, -1);
    s.learning_rate = hy3_schedule_rate(&run->schedule, step);
    HY3_TRY(hy3_sharded_optimizer_step(&run->optimizer, hy3_pass_stream(run->pass), step + 1,
                                       totals.weight, run->config->max_grad_norm, s.learning_rate,
                                       &s.grad_norm));
    s.epoch = (double)(step + 1) / (double)run->data.steps_per_epoch;
    s.loss = totals.loss / totals.weight;
    s.step_tokens = (int64_t)totals.tokens;
    run->limit.step = hy3_seconds() - begin;
    run->time.micros += middle - begin;
    run->time.update += begin + run->limit.step - middle;
    run->time.tokens += totals.tokens;
    count_kinds(run, 1);
    run->time.steps++;
    if (evaluates_at(run, step + 1))
        HY3_TRY(judge(run, step + 1, e));
    s.has_eval = e->is_done;
    s.eval_loss = e->loss;
    return hy3_agree(run->comm, hy3_report_step(run->report, &s), "writing the log");
}

/* The evaluation of the step that the run goes on from, where it was cut short and decides
 * something: so that a run that is stopped ends as one that is not. */
static hy3_status make_up_evaluation(struct hy3_run *run)
{
    const struct hy3_best_rules rules = hy3_run_state_rules(run);
    int64_t step = run->restored.step;
    struct evaluation e = {0};

    if (step == 0 || !hy3_config_chooses(run->config) || !evaluates_at(run, step) ||
        run->best.evaluated >= step)
        return HY3_OK;
    HY3_TRY(judge(run, step, &e));
    if (!e.is_done) { /* trying again in each run would never end where max_hours is too short */
        hy3_log(HY3_LOG_WARN,
                "the evaluation of step %lld was cut short again: the best is chosen without it",
                (long long)step);
        return HY3_OK;
    }
    hy3_log(HY3_LOG_INFO, "step %lld: eval_loss %.6g; this evaluation had been cut short",
            (long long)step, e.loss);
    HY3_AGREE(run->comm,
              hy3_report_evaluation(run->report, (double)step / (double)run->data.steps_per_epoch,
                                    e.loss),
              "writing the log");
    if (!hy3_checkpoints_is_elsewhere(run->checkpoints) &&
        (saves_at(run, step, &e) || step == run->data.steps))
        hy3_best_note_checkpoint(hy3_checkpoints_best(run->checkpoints), &rules, step, e.loss);
    return HY3_OK;
}

/* The checkpoint after `step`, if one is due, or if it is the last. */
static hy3_status save(struct hy3_run *run, int64_t step, const struct evaluation *e, bool is_last)
{
    bool is_due = saves_at(run, step, e);

    if (!is_due && (!is_last || run->config->save_only_model))
        return HY3_OK;
    hy3_heartbeat("checkpoint", step, -1);
    return hy3_run_state_save(run, !is_due, e->is_done ? &e->loss : NULL);
}

/* All steps, with a checkpoint after the last: more steps go on from there. */
static hy3_status train_steps(struct hy3_run *run)
{
    const int64_t first = run->restored.step;
    int64_t reason;

    hy3_stop_announce(stops_after_step);
    HY3_TRY(make_up_evaluation(run));
    reason = reason_after(run, first);
    for (run->last = first; run->last < run->data.steps && !ends_early(run); run->last++) {
        int64_t step = run->last + 1;
        struct evaluation e = {0};

        if (reason != CONTINUE)
            return stop(run, run->last, reason);
        HY3_TRY(train_step(run, run->last, &e));
        if (run->last == first) { /* without the one-time work of the first step */
            hy3_profile_reset();
            hy3_run_time_restart(&run->time);
        }
        HY3_TRY(save(run, step, &e, step == run->data.steps || ends_early(run)));
        reason = reason_after(run, step);
    }
    if (run->last < run->data.steps)
        hy3_log(HY3_LOG_INFO,
                "early stopping after step %lld of %lld: %lld evaluation%s without an improvement "
                "(early_stopping_patience); the best eval_loss is %.6g, of step %lld",
                (long long)run->last, (long long)run->data.steps, (long long)run->best.stale,
                hy3_s(run->best.stale), run->best.metric, (long long)run->best.step);
    return hy3_checkpoints_wait(run->checkpoints);
}

/* The weights of the best checkpoint, if they are to be the result. */
static hy3_status choose_result(struct hy3_run *run)
{
    int64_t best = hy3_checkpoints_best(run->checkpoints)->checkpoint;

    if (!run->config->load_best_model_at_end || best == run->last)
        return HY3_OK;
    if (best > 0)
        return hy3_run_state_load_best(run);
    hy3_log(
        HY3_LOG_WARN,
        "load_best_model_at_end: no checkpoint that is there has a finite eval_loss; the result "
        "is the last step");
    return HY3_OK;
}

/* The checkpoint of the last step is there: what does not fit is written by the next run. One that
 * has done no step goes on, or the result were never written. */
static hy3_status write_result(struct hy3_run *run)
{
    int64_t last = run->last, reason = CONTINUE;
    bool can_stop = is_saved(run, last);

    hy3_stop_announce(can_stop ? "ending, with the checkpoint of the last step"
                               : "ending when the result is written");
    if (can_stop)
        reason = reason_to_stop(run, run->restored.step < last && hy3_limit_stops_write(run));
    if (run->restored.step < last)
        hy3_stop_deadline(run->limit.end);
    if (reason != CONTINUE)
        return stop(run, last, reason);
    HY3_TRY(choose_result(run));
    return save_result(run, can_stop);
}

/* From here on output_dir changes. */
static hy3_status begin(struct hy3_run *run)
{
    struct hy3_run_facts facts = hy3_run_state_facts(run);

    HY3_AGREE(run->comm, hy3_lock_check(run->lock), "opening the output directory");
    HY3_TRY(hy3_output_dir_begin(&run->dir, &facts, run->restored.step));
    HY3_AGREE(
        run->comm,
        hy3_report_open(run->config->output_dir, run->data.steps,
                        hy3_config_interval(run->config->logging_steps, run->data.schedule_steps),
                        hy3_rank(run->comm) == 0, &run->restored, &run->report),
        "opening the log");
    return HY3_OK;
}

/* What the steps took beside what a plan says; no reason to lose the result. */
static void log_times(const struct hy3_run *run)
{
    if (hy3_rank(run->comm) == 0 &&
        hy3_run_time_log(&run->settled, &run->model, &run->time) != HY3_OK)
        hy3_log(HY3_LOG_WARN, "no prediction of the time: %s", hy3_error_text());
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
    HY3_TRY(hy3_output_dir_finish(&run->dir, run->last));
    log_times(run);
    hy3_log(HY3_LOG_INFO, "done: %lld step%s, %.0f tokens/s; the %s is in '%s'",
            (long long)run->last, hy3_s(run->last), hy3_report_rate(run->report),
            run->model.params->lora.rank > 0 ? "adapter" : "model", run->config->output_dir);
    return HY3_OK;
}
