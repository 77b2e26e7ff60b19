/* SPDX-License-Identifier: Apache-2.0 */
/* load.h - a configuration from its file and the arguments that override it. */
#pragma once

#include "config/settings.h"

#include <mpi.h>

/* Collective on `comm`. Rank 0 reads the file, all ranks parse the same bytes; path NULL: none was
 * given. problems: those so far, which are reported with all others. program: whose needs are
 * checked. On failure *config is empty. Errors: HY3_EUSAGE, HY3_EIO. */
hy3_status hy3_config_load(struct hy3_config *config, MPI_Comm comm, const char *path,
                           const struct hy3_settings *overrides, const char *program,
                           struct hy3_problems *problems);
