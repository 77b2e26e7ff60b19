/* SPDX-License-Identifier: Apache-2.0 */
/* memory.h - the memory of a run: whether it fits the GPU, and afterwards what it used. */
#ifndef HY3_TRAIN_MEMORY_H
#define HY3_TRAIN_MEMORY_H

#include "app/loaded_model.h"
#include "config/config.h"

struct hy3_run_memory {
    size_t resident;                    /* bytes of host memory at the start */
    size_t device_free, device_planned; /* bytes of a GPU: at the start; what the run takes */
};

/* Local. Whether the device holds what the run will take, by hy3_plan's own count; before weights
 * are loaded. longest: tokens of the longest sample. Errors: HY3_ENOMEM. */
hy3_status hy3_run_memory_check(const struct hy3_config *config,
                                const struct hy3_loaded_model *model, int64_t longest,
                                struct hy3_run_memory *memory);

/* Collective. Logs what the fullest rank needed, and of a GPU what was planned. */
hy3_status hy3_run_memory_log(const struct hy3_loaded_model *model,
                              const struct hy3_run_memory *memory);

#endif
