/* SPDX-License-Identifier: Apache-2.0 */
/* output_dir.h - the output directory of a run: whose it is, and what is written into it first. */
#pragma once

#include "comm/lock_wait.h"
#include "config/config.h"

/* Collective on `comm`. Creates output_dir and gets its lock, before anything there is looked at or
 * changed. Rank 0 owns *out (hy3_lock_close). Errors: HY3_EUSAGE: another run has it. */
hy3_status hy3_output_dir_lock(MPI_Comm comm, const struct hy3_config *config,
                               struct hy3_lock **out);

/* Collective on `comm`. Writes config.cfg, the resolved configuration. Refused (HY3_EUSAGE): a
 * directory with other files that no run of ours made; one with a finished model of another
 * configuration, unless overwrite_output_dir. A run that was cut short, or the same configuration
 * again, may start over. */
hy3_status hy3_output_dir_open(MPI_Comm comm, const struct hy3_config *config);
