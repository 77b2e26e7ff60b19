/* SPDX-License-Identifier: Apache-2.0 */
/* help.h - what the option table says to people: --help, the key reference, manual pages. */
#pragma once

#include "config/options.h"

#include <stdio.h>

/* What the command line of a program may hold. */
struct hy3_usage {
    const char *program, *summary;      /* "hy3_init", "Makes a small random checkpoint." */
    const struct hy3_option *arguments; /* at most 64, then an entry of zeros */
    struct hy3_config *config;          /* CONFIG and key=value fill it; NULL: they are none */
    bool lists_keys; /* help and manual are about the keys; flags of other tools are taken */
};

/* The help of CONFIG in a program with other arguments. */
#define HY3_HELP_CONFIG "configuration of the run"
#define HY3_HELP_KEYS   "overrides a key of the configuration"
#define HY3_HELP_PRINT  "prints the resolved configuration as a libconfig file, and ends"

/* Local. The text of --help: of the arguments, or of the keys if there are none. */
hy3_status hy3_help_write(FILE *out, const struct hy3_usage *usage);

/* Local. The key reference in Markdown (doc/config.md). */
hy3_status hy3_reference_write_md(FILE *out);

/* Local. What becomes of the keys of other tools, in Markdown (doc/migration.md). */
hy3_status hy3_reference_write_migration(FILE *out);

/* Local. The manual page of a program (doc/man/PROGRAM.1; the keys are listed in that of
 * hy3_sft). */
hy3_status hy3_reference_write_man(FILE *out, const struct hy3_usage *usage);

/* Local. The section EXIT STATUS of a program's manual page: the codes it can end with, their
 * meanings from HY3_STATUSES. */
void hy3_reference_write_exit(FILE *out, const char *program);
