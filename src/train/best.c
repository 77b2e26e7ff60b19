/* SPDX-License-Identifier: Apache-2.0 */
/* best.c - comparisons of metrics. */
#include "train/best.h"

#include <math.h>

static bool is_better(const struct hy3_best_rules *rules, double metric, double than)
{
    return rules->greater ? metric > than : metric < than;
}

bool hy3_best_note(struct hy3_state_best *best, const struct hy3_best_rules *rules, int64_t step,
                   double metric)
{
    bool is_first = best->step == 0;
    bool is_new = isfinite(metric) && (is_first || is_better(rules, metric, best->metric));

    if (is_new && (is_first || fabs(metric - best->metric) > rules->threshold))
        best->stale = 0;
    else
        best->stale++;
    best->evaluated = step;
    if (is_new) {
        best->step = step;
        best->metric = metric;
    }
    return is_new;
}

void hy3_best_note_checkpoint(struct hy3_state_best *best, const struct hy3_best_rules *rules,
                              int64_t step, double metric)
{
    if (!isfinite(metric) ||
        (best->checkpoint > 0 && !is_better(rules, metric, best->checkpoint_metric)))
        return;
    best->checkpoint = step;
    best->checkpoint_metric = metric;
}

bool hy3_best_ends_run(const struct hy3_state_best *best, const struct hy3_best_rules *rules)
{
    return rules->patience > 0 && best->stale >= rules->patience;
}
