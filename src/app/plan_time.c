/* SPDX-License-Identifier: Apache-2.0 */
/* plan_time.c - prints the timeline of a plan. */
#include "app/plan_time.h"

#include "app/module_options.h"

#include <math.h>

static void print_part(const char *what, double seconds, double whole)
{
    printf("  %-42s %10.3f s %5.1f %%\n", what, seconds, whole > 0 ? 100 * seconds / whole : 0);
}

/* A checkpoint must be complete before the time limit: what is under way is finished first, a step,
 * whose seconds are known by rates only. */
static void print_checkpoint(const struct hy3_plan *plan, double disk, bool has_step)
{
    double seconds = plan->checkpoint / (disk > 0 ? disk : 1);

    if (disk <= 0)
        return;
    printf("  checkpoint at %.3g GB/s: %.0f s; ", 1e-9 * disk, seconds);
    if (has_step)
        printf("--signal=USR1@%.0f\n",
               60 + 60 * ceil((seconds + hy3_plan_seconds(plan)) * 1.25 / 60));
    else
        printf("with --rates also the time of --signal\n");
}

void hy3_plan_time_print(const struct hy3_config *config, const struct hy3_plan_options *options,
                         const struct hy3_plan *plan)
{
    double micros = (double)config->gradient_accumulation_steps, step = hy3_plan_seconds(plan);
    double tokens =
        micros *
        (double)(config->per_device_train_batch_size * hy3_module_options_item_tokens(config)) /
        (double)config->sequence_parallel_size;
    const struct hy3_timing *m = &plan->micros;

    if (!options->rates) {
        print_checkpoint(plan, options->disk, false);
        return;
    }
    printf("estimated time per step, busiest experts at %.2f times the mean\n", options->imbalance);
    printf("  %lld x %.3f s + update %.3f s = %.3f s\n", (long long)micros, m->seconds / micros,
           plan->update.seconds, step);
    print_part("products", m->busy[HY3_PRODUCTS], step);
    print_part("attention", m->busy[HY3_ATTENTION], step);
    print_part("element-wise kernels", m->busy[HY3_ELEMENTWISE], step);
    print_part("waiting for gathers of weights", m->gathers, step);
    print_part("waiting for sums of gradients", m->sums, step);
    print_part("exchange with experts", m->exchange, step);
    print_part("waiting for copies from the host", m->copies + m->busy[HY3_COPY], step);
    print_part("waiting for the host", m->host, step);
    print_part("update", plan->update.seconds, step);
    printf(
        "  %.0f tokens/s per rank, %.0f in all; %.1f %% of the device's peak, recomputation "
        "counted\n",
        tokens / step, options->ranks * tokens / step,
        100 * (m->flops + plan->update.flops) / step / options->rates->peak);
    print_checkpoint(plan, options->disk, true);
}
