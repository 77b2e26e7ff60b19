/* SPDX-License-Identifier: Apache-2.0 */
/* offload.h - what offload = auto has become, by the ratio that a plan took (plan.h). */
#pragma once

#include "config/config.h"

/* Local. auto becomes `full` with this ratio, or none; other values stay. */
void hy3_offload_settle(double ratio, struct hy3_config *config);

enum { HY3_OFFLOAD_TEXT = 160 };

/* "offload = auto: 43 % of the optimizer state ... are in host memory"; returns out. */
const char *hy3_offload_text(const struct hy3_config *config, double ratio,
                             char out[HY3_OFFLOAD_TEXT]);
