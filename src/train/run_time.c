/* SPDX-License-Identifier: Apache-2.0 */
/* run_time.c - a plan of the mean step that was measured. */
#include "train/run_time.h"

#include "app/rates.h"
#include "base/log.h"
#include "train/run_plan.h"

#include <math.h>

hy3_status hy3_run_time_open(const struct hy3_config *config, const struct hy3_loaded_model *model,
                             struct hy3_run_time *time)
{
    hy3_status status;

    *time = (struct hy3_run_time){0};
    HY3_TRY(hy3_rates_name(config->rates, &model->backend->device, time->device));
    if (time->device[0] == '\0')
        return HY3_OK;
    status = hy3_rates_read(time->device, &time->rates);
    if (status == HY3_OK || config->rates)
        return status;
    hy3_log(HY3_LOG_WARN, "no seconds are predicted: %s", hy3_error_text());
    time->device[0] = '\0';
    return HY3_OK;
}

void hy3_run_time_restart(struct hy3_run_time *time)
{
    memset(time->kinds, 0, sizeof time->kinds);
    time->micros = time->update = time->tokens = 0;
    time->steps = 0;
}

/* The step whose samples, or rows of packing, all have the mean length. */
static hy3_status predict(const struct hy3_config *config, const struct hy3_loaded_model *model,
                          const struct hy3_run_time *time, struct hy3_plan *plan)
{
    const struct hy3_plan_options options = {
        .rates = &time->rates, .imbalance = HY3_PLAN_IMBALANCE, .profile = config->profile};
    int64_t groups = model->layout.world.size / model->layout.sequence.size;
    double items = (double)(config->per_device_train_batch_size *
                            config->gradient_accumulation_steps * groups * time->steps);

    return hy3_run_plan(config, model, (int64_t)fmax(1, round(time->tokens / items)), options,
                        plan);
}

static void line(const char *what, double predicted, double measured)
{
    hy3_log(HY3_LOG_INFO, "time: %-24s predicted %10.4f s, measured %10.4f s (%+.1f %%)", what,
            predicted, measured, 100 * (measured / predicted - 1));
}

/* Seconds of these kinds. */
static double sum(const double *kinds, int first, int last)
{
    double s = 0;

    for (int i = first; i <= last; i++)
        s += kinds[i];
    return s;
}

static void lines_of_kinds(const double *predicted, const double *measured, double steps)
{
    static const struct {
        const char *what;
        enum hy3_profile_kind first, last;
    } rows[] = {
        {"products", HY3_PROFILE_PRODUCTS, HY3_PROFILE_GROUPED_WEIGHTS},
        {"attention", HY3_PROFILE_ATTENTION_FORWARD, HY3_PROFILE_ATTENTION_BACKWARD},
        {"element-wise kernels", HY3_PROFILE_ELEMENTWISE, HY3_PROFILE_ELEMENTWISE},
        {"AdamW", HY3_PROFILE_ADAMW, HY3_PROFILE_ADAMW},
        {"copies", HY3_PROFILE_COPIES, HY3_PROFILE_COPIES},
        {"gathers and sums", HY3_PROFILE_SUMS, HY3_PROFILE_SUMS},
        {"exchange", HY3_PROFILE_EXCHANGE, HY3_PROFILE_EXCHANGE},
    };

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        double p = sum(predicted, (int)rows[i].first, (int)rows[i].last);

        if (p > 0)
            line(rows[i].what, p, sum(measured, (int)rows[i].first, (int)rows[i].last) / steps);
    }
}

hy3_status hy3_run_time_log(const struct hy3_config *config, const struct hy3_loaded_model *model,
                            const struct hy3_run_time *time)
{
    double steps = (double)time->steps, micros = time->micros, update = time->update;
    struct hy3_plan plan;

    if (time->device[0] == '\0' || time->steps == 0)
        return HY3_OK;
    HY3_TRY(predict(config, model, time, &plan));
    hy3_log(HY3_LOG_INFO, "time: a step after the first, at the rates '%s':", time->device);
    line("micro-batches", plan.micros.seconds, micros / steps);
    line("update", plan.update.seconds, update / steps);
    line("both", plan.micros.seconds + plan.update.seconds, (micros + update) / steps);
    if (config->profile)
        lines_of_kinds(plan.kinds, time->kinds, steps);
    return HY3_OK;
}
