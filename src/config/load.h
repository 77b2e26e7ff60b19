/* SPDX-License-Identifier: Apache-2.0 */
/* load.h - a configuration from its file or flags, and the arguments that override it. */
#pragma once

#include "config/foreign/keys.h"
#include "config/settings.h"

#include <mpi.h>

struct hy3_config_source {
    const char *path;                     /* of the file; NULL: none was given */
    const struct hy3_settings *flags;     /* of another tool, instead of a file; NULL: none */
    enum hy3_origin origin;               /* of the flags */
    const struct hy3_settings *overrides; /* key=value */
    const char *program;                  /* whose needs are checked */
};

/* Collective on `comm`. Rank 0 reads the file: libconfig; .yaml, .yml or .json of LLaMA-Factory or
 * ms-swift. problems: those so far, which are reported with all others. On failure *config is
 * empty. Errors: HY3_EUSAGE, HY3_EIO. */
hy3_status hy3_config_load(struct hy3_config *config, MPI_Comm comm,
                           const struct hy3_config_source *source, struct hy3_problems *problems);
