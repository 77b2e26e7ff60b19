/* SPDX-License-Identifier: Apache-2.0 */
/* log.h - messages of a run: one writer (rank 0), levels, one progress line.
 *
 * Messages go to standard error, results of a program to standard output. HY3_LOG is quiet, info
 * (the default) or debug. On a terminal the progress line is redrawn in place; in a file it is a
 * new line at most every few seconds, so a batch log stays readable. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

typedef enum { HY3_LOG_ERROR, HY3_LOG_WARN, HY3_LOG_INFO, HY3_LOG_DEBUG } hy3_log_level;

/* Local. Names the program in messages; only the rank with `writes` prints. */
void hy3_log_start(const char *program, bool writes);

/* Local. The program's name, "hy3" before hy3_log_start. */
const char *hy3_log_program(void);

/* Local. One line: "hy3_sft: warning: …"; the level info has no word of its own. */
void hy3_log(hy3_log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Local. A line of the level info, without a format; may be called by a signal handler. */
void hy3_log_from_handler(const char *text);

/* Local. Whether the progress line is redrawn in place. */
bool hy3_log_is_terminal(void);

/* Local. Shows "label  12/40 [#####    ] 30 %  text  ETA 0:42" for done of total items of work.
 * `text` may be "". Prints at once when done == total, which also ends the line. Cheap to call
 * often. */
void hy3_log_progress(const char *label, int64_t done, int64_t total, const char *text);

/* Local. The same for bytes since hy3_seconds() was `begin`: shown in kB or MB, with the rate. */
void hy3_log_progress_bytes(const char *label, int64_t done, int64_t total, double begin);

/* Local. Seconds of a monotonic clock. */
double hy3_seconds(void);
