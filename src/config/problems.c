/* SPDX-License-Identifier: Apache-2.0 */
/* problems.c - a list of messages of bounded size. */
#include "config/problems.h"

#include "base/printable.h"

#include <stdarg.h>

void hy3_problem(struct hy3_problems *problems, const char *where, const char *format, ...)
{
    char line[1024];
    int used = snprintf(line, sizeof line, "%s%s", where, *where ? ": " : "");
    size_t size;
    va_list args;

    problems->count++;
    if (used >= 0 && (size_t)used < sizeof line) {
        va_start(args, format);
        vsnprintf(line + used, sizeof line - (size_t)used, format, args);
        va_end(args);
    }
    hy3_make_printable(line, false);
    size = strlen(line);
    if (problems->count > problems->shown + 1 || size + 4 > sizeof problems->text - problems->used)
        return;
    problems->shown++;
    problems->used += (size_t)snprintf(problems->text + problems->used,
                                       sizeof problems->text - problems->used, "\n  %s", line);
}

hy3_status hy3_problems_status(const struct hy3_problems *problems)
{
    char more[64] = "";

    if (problems->count == 0)
        return HY3_OK;
    if (problems->count == 1)
        HY3_FAIL(HY3_EUSAGE, "%s", problems->text + 3);
    if (problems->count > problems->shown)
        snprintf(more, sizeof more, "\n  and %d more", problems->count - problems->shown);
    HY3_FAIL(HY3_EUSAGE, "%d problems:%s%s", problems->count, problems->text, more);
}
