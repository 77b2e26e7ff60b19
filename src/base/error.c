/* SPDX-License-Identifier: Apache-2.0 */
/* error.c - the thread's error text and the end on a broken invariant. */
#include "base/error.h"

#include "base/printable.h"

#include <execinfo.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#undef hy3_fail /* tests/support/analyzer.h */

static _Thread_local char text[HY3_ERROR_MAX];

hy3_status hy3_fail(hy3_status code, const char *file, int line, const char *format, ...)
{
    const char *level = getenv("HY3_LOG");
    va_list args;
    size_t used;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    hy3_make_printable(text, true);
    used = strlen(text);
    if (level && strcmp(level, "debug") == 0)
        snprintf(text + used, sizeof text - used, " [%s:%d]", file, line);
    return code;
}

void hy3_error_set(const char *replacement)
{
    snprintf(text, sizeof text, "%s", replacement);
}

const char *hy3_error_text(void)
{
    return text;
}

int hy3_exit_code(hy3_status status)
{
    static const int codes[] = {
#define X(name, code, meaning) code,
        HY3_STATUSES(X)
#undef X
    };

    return codes[status];
}

const char *hy3_status_text(hy3_status status)
{
    static const char *const meanings[] = {
#define X(name, code, meaning) meaning,
        HY3_STATUSES(X)
#undef X
    };

    return meanings[status];
}

void hy3_bug(const char *file, int line, const char *format, ...)
{
    void *frames[64];
    va_list args;

    fprintf(stderr, "hy3: internal error at %s:%d: ", file, line);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputs("\nplease report this line and the frames below\n", stderr);
    backtrace_symbols_fd(frames, backtrace(frames, 64), 2);
    abort();
}
