/* SPDX-License-Identifier: Apache-2.0 */
/* error.h - statuses, exit codes and the thread's error text.
 *
 * A function that can fail returns hy3_status and has written, once, what happened, where, and what
 * to do. Callers pass a status up untouched (HY3_TRY, HY3_TRY_DONE). Agreement over ranks is
 * comm/agree.h. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* clang-format off */
#define HY3_STATUSES(X) /* name, exit code, meaning; in ascending order of severity */     \
    X(HY3_OK,        0, "done")                                                            \
    X(HY3_STOPPED,  75, "stopped by a signal or max_hours; the same command continues")    \
    X(HY3_EUSAGE,    2, ("the command line or the configuration is wrong, or a file or "   \
                         "directory that it names is missing or cannot be used"))          \
    X(HY3_EFORMAT,   1, "a file has invalid contents")                                     \
    X(HY3_EIO,       1, "a file could not be read or written")                             \
    X(HY3_ENOMEM,    1, "out of host or device memory")                                    \
    X(HY3_EDEVICE,   1, "a GPU, its driver or one of its libraries failed")                \
    X(HY3_EDIVERGED, 3, "loss, gradient or weights are not finite")                        \
    X(HY3_EPEER,     4, "a rank has died or hangs")

typedef enum {
#define X(name, code, meaning) name,
    HY3_STATUSES(X)
#undef X
} hy3_status;
/* clang-format on */

/* Return from the function at the first failure: where nothing is to be released. */
#define HY3_TRY(call)                   \
    do {                                \
        hy3_status try_status = (call); \
        if (try_status != HY3_OK)       \
            return try_status;          \
    } while (0)
#define HY3_FAIL(code, ...) return hy3_fail((code), __FILE__, __LINE__, __VA_ARGS__)

/* The same, but go to the label `done`, where everything is released; they need `hy3_status status`
 * in scope. */
#define HY3_TRY_DONE(call)               \
    do {                                 \
        if ((status = (call)) != HY3_OK) \
            goto done;                   \
    } while (0)
#define HY3_FAIL_DONE(code, ...)                                    \
    do {                                                            \
        status = hy3_fail((code), __FILE__, __LINE__, __VA_ARGS__); \
        goto done;                                                  \
    } while (0)

/* A broken invariant of hy3: message, backtrace, abort. No user input can reach it. */
#define HY3_BUG(...) hy3_bug(__FILE__, __LINE__, __VA_ARGS__)
#define HY3_ASSERT(fact)                              \
    do {                                              \
        if (!(fact))                                  \
            HY3_BUG("the invariant %s fails", #fact); \
    } while (0)

enum { HY3_ERROR_MAX = 4096 }; /* bytes of an error text with its final NUL */

/* Local. Writes the thread's error text (printf style, no full stop, one or more lines) and returns
 * `code`. `file` and `line` are the place in our source, shown with HY3_LOG=debug only. */
hy3_status hy3_fail(hy3_status code, const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Local. Replaces the thread's error text. */
void hy3_error_set(const char *text);

/* Local. The thread's error text, "" before the first failure; valid until the next failure. */
const char *hy3_error_text(void);

/* Local. The exit code of a status, see HY3_STATUSES. */
int hy3_exit_code(hy3_status status);

/* Local. The meaning of a status. */
const char *hy3_status_text(hy3_status status);

_Noreturn void hy3_bug(const char *file, int line, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#include "base/banned.h"
