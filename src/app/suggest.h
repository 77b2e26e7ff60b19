/* SPDX-License-Identifier: Apache-2.0 */
/* suggest.h - settings with which a step takes less time, or fits. */
#pragma once

#include "app/plan.h"

/* Local. Plans expert_parallel_size, zero_stage and offload in all combinations, where none fits
 * with larger sequence groups, too; then, for the best of them, micro-batches of other sizes in a
 * global batch of the same and other prefetches; prints the five fastest that fit, as what is to be
 * changed. A change without which it is as fast, and fits, is left out; nothing that is slower than
 * as configured is printed, unless that does not fit. plan: as configured; options->rates is
 * needed. Errors: those of hy3_plan_make, HY3_STOPPED. */
hy3_status hy3_suggest_print(const struct hy3_config *config, const struct hy3_shape *shape,
                             const struct hy3_plan_options *options, const struct hy3_plan *plan);
