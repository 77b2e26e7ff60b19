/* SPDX-License-Identifier: Apache-2.0 */
/* limit.c - durations of what is coming. */
#include "train/limit.h"

#include "app/save.h"
#include "base/log.h"
#include "train/run_parts.h"

static const double margin = 1.5;    /* of a duration */
static const double disk_rate = 1e9; /* bytes/s while none has been measured */
static const double forward = 0.5;   /* an evaluated micro-batch, of one that is learned: or less */

void hy3_limit_begin(struct hy3_limit *limit, double max_hours)
{
    *limit = (struct hy3_limit){.end = max_hours > 0 ? hy3_seconds() + 3600 * max_hours : 0};
}

static double checkpoint_seconds(const struct hy3_run *run)
{
    double last = hy3_checkpoints_seconds(run->checkpoints);

    return last > 0 ? last : hy3_state_bytes(run->model.params) / disk_rate;
}

/* The best checkpoint is read as fast as one is written. */
static double write_seconds(const struct hy3_run *run)
{
    double read = run->config->load_best_model_at_end ? checkpoint_seconds(run) : 0;

    return read + hy3_save_bytes(run->model.params, hy3_store_dtype(run->model.store)) *
                      checkpoint_seconds(run) / hy3_state_bytes(run->model.params);
}

static double evaluation_seconds(const struct hy3_run *run)
{
    double micros = (double)hy3_batches_steps_per_epoch(&run->data.eval);

    if (run->limit.evaluation > 0)
        return run->limit.evaluation;
    return forward * run->limit.step * micros / (double)run->data.train.accumulation;
}

static bool is_over(const struct hy3_run *run, double needed)
{
    return run->limit.end > 0 && hy3_seconds() + margin * needed >= run->limit.end;
}

bool hy3_limit_is_near(const struct hy3_run *run)
{
    return is_over(run, checkpoint_seconds(run));
}

bool hy3_limit_stops(const struct hy3_run *run, bool evaluates, bool is_last)
{
    double needed = run->limit.step + checkpoint_seconds(run);

    if (evaluates)
        needed += evaluation_seconds(run);
    if (is_last)
        needed += write_seconds(run);
    return is_over(run, needed);
}

bool hy3_limit_stops_write(const struct hy3_run *run)
{
    return is_over(run, write_seconds(run));
}
