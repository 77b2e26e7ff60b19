/* SPDX-License-Identifier: Apache-2.0 */
/* plan_fit.h - changes that make a run fit the memory limits. */
#pragma once

#include "app/plan.h"

/* Sets the i-th setting that may make a run fit, to be tried in this order, each with those before
 * it. Returns it as text; NULL: there is none. *changed: whether it was not set so before. */
const char *hy3_plan_fit_change(struct hy3_config *config, int i, bool *changed);

/* Local. The smallest power of two of ranks, at most HY3_PLAN_FIT_RANKS, on which the run fits as
 * configured, and the plan for them; *ranks 0: none. */
enum { HY3_PLAN_FIT_RANKS = 4096 };

hy3_status hy3_plan_fit_ranks(const struct hy3_config *config, const struct hy3_shape *shape,
                              const struct hy3_plan_options *options, int *ranks,
                              struct hy3_plan *plan);
