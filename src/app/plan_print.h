/* SPDX-License-Identifier: Apache-2.0 */
/* plan_print.h - a plan as a table for the user, with advice. */
#pragma once

#include "app/plan.h"

/* Local. Prints the table, whether the run fits, and if not what would: settings one after the
 * other, and the smallest number of ranks. trace: the file of a timeline, or NULL. HY3_ENOMEM if it
 * does not fit. */
hy3_status hy3_plan_print(const struct hy3_config *config, const struct hy3_plan_options *options,
                          const char *trace);
