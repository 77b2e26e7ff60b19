/* SPDX-License-Identifier: Apache-2.0 */
/* run_plan.h - the plan of a run as it is laid out. */
#pragma once

#include "app/loaded_model.h"
#include "app/plan.h"

/* Local. hy3_plan_make for the ranks and groups of `model`, with samples, or rows of packing, of
 * `length` tokens; the number of ranks in options is not read. */
hy3_status hy3_run_plan(const struct hy3_config *config, const struct hy3_loaded_model *model,
                        int64_t length, struct hy3_plan_options options, struct hy3_plan *plan);
