/* SPDX-License-Identifier: Apache-2.0 */
/* run_memory.h - the memory of a run: whether it fits the device, and what it used. */
#pragma once

#include "app/loaded_model.h"
#include "config/config.h"

struct hy3_run_memory {
    size_t resident;                    /* bytes of host memory at the start */
    size_t device_free, device_planned; /* bytes of a GPU: free at the start; planned */
    double offload_ratio;               /* what offload = auto takes (plan.h) */
};

/* Collective. Whether the devices have the memory that the run needs by hy3_plan's count, and what
 * offload = auto puts into host memory so that they do; called before weights are loaded. longest:
 * tokens of the longest sample. Errors: HY3_ENOMEM. */
hy3_status hy3_run_memory_check(const struct hy3_config *config,
                                const struct hy3_loaded_model *model, int64_t longest,
                                struct hy3_run_memory *memory);

/* Collective. Logs the largest memory use of a rank, and for a GPU the planned one. */
hy3_status hy3_run_memory_log(const struct hy3_loaded_model *model,
                              const struct hy3_run_memory *memory);
