/* SPDX-License-Identifier: Apache-2.0 */
/* problems.h - collects the errors of a file and the arguments, so that all are reported at once.
 * */
#pragma once

#include "base/error.h"

struct hy3_problems { /* zero: none yet */
    int count, shown; /* the first ones that fit are shown, the others counted */
    size_t used;
    char text[HY3_ERROR_MAX - 256];
};

/* Local. Adds one line, "where: text"; where may be "". Control characters of foreign texts are
 * shown as '?'. */
void hy3_problem(struct hy3_problems *problems, const char *where, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Local. HY3_OK if there is none; else HY3_EUSAGE with all of them, one a line. */
hy3_status hy3_problems_status(const struct hy3_problems *problems);
