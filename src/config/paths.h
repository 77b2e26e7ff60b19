/* SPDX-License-Identifier: Apache-2.0 */
/* paths.h - whether the files and directories that a user names can be used. */
#pragma once

#include "config/options.h"
#include "config/problems.h"

/* Local. Adds to `problems` every argument whose path cannot be used as its entry says. */
void hy3_paths_of_arguments(const struct hy3_option *arguments, struct hy3_problems *problems);

/* Local. The same for the keys of the configuration that `program` reads. */
void hy3_paths_of_config(const struct hy3_config *config, const char *program,
                         struct hy3_problems *problems);
