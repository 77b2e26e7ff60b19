/* SPDX-License-Identifier: Apache-2.0 */
/* plan_time.h - the seconds of a planned step, as text. */
#pragma once

#include "app/plan.h"

/* Local. Prints seconds of a micro-batch, of the update and of a step, where they go, and tokens
 * per second; without rates only the seconds of a checkpoint, which need options->disk. */
void hy3_plan_time_print(const struct hy3_config *config, const struct hy3_plan_options *options,
                         const struct hy3_plan *plan);
