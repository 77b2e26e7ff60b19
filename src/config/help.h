/* SPDX-License-Identifier: Apache-2.0 */
/* help.h - what the option table says to people: --help, the key reference, manual pages. */
#ifndef HY3_CONFIG_HELP_H
#define HY3_CONFIG_HELP_H

#include "base/error.h"

#include <stdio.h>

/* Local. The text of --help, at most 100 columns wide. */
hy3_status hy3_help_write(FILE *out, const char *program, const char *summary);

/* Local. The key reference in Markdown (doc/config.md), or the manual page of a program that takes
 * a configuration (doc/man/PROGRAM.1; the keys are listed in that of hy3_sft). */
hy3_status hy3_reference_write_md(FILE *out);
hy3_status hy3_reference_write_man(FILE *out, const char *program, const char *summary);

/* Local. The section EXIT STATUS of every manual page, from HY3_STATUSES. */
void hy3_reference_write_exit(FILE *out);

#endif
