/* SPDX-License-Identifier: Apache-2.0 */
/* run_disk.h - whether output_dir has the space that a run needs. */
#pragma once

#include "app/loaded_model.h"
#include "config/config.h"

/* Local; rank 0 looks. Errors: HY3_EIO, where not even one checkpoint or the result fits. A warning
 * where not all that the run would keep fits. steps: left to do; every: steps between two
 * checkpoints. */
hy3_status hy3_run_disk_check(const struct hy3_config *config, const struct hy3_loaded_model *model,
                              int64_t steps, int64_t every);
