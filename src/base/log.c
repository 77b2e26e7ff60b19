/* SPDX-License-Identifier: Apache-2.0 */
/* log.c - messages and the progress line. */
#include "base/log.h"

#include "base/printable.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LONGEST = 16384 }; /* bytes of a message */

static struct {
    const char *program;
    bool silent;        /* this rank does not write */
    bool is_quiet;      /* HY3_LOG=quiet, or not begun */
    bool line_open;     /* a redrawn progress line stands on the terminal */
    double begin, last; /* of the progress line: seconds */
    char label[32];     /* which work the progress line shows */
    const char *unit;   /* behind its numbers */
    int64_t first;      /* items already done when it began */
} state = {.program = "hy3", .unit = "", .is_quiet = true};

double hy3_seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static hy3_log_level threshold(void)
{
    const char *word = getenv("HY3_LOG");

    if (word && strcmp(word, "quiet") == 0)
        return HY3_LOG_WARN;
    return word && strcmp(word, "debug") == 0 ? HY3_LOG_DEBUG : HY3_LOG_INFO;
}

void hy3_log_start(const char *program, bool writes)
{
    state.program = program;
    state.silent = !writes;
    state.is_quiet = threshold() < HY3_LOG_INFO;
}

const char *hy3_log_program(void)
{
    return state.program;
}

bool hy3_log_is_terminal(void)
{
    return !state.silent && isatty(STDERR_FILENO);
}

void hy3_log(hy3_log_level level, const char *format, ...)
{
    static const char *const words[] = {"error: ", "warning: ", "", "debug: "};
    char text[LONGEST];
    va_list args;

    if (state.silent || level > threshold())
        return;
    if (state.line_open)
        fputc('\n', stderr);
    state.line_open = false;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    hy3_make_printable(text, true);
    fprintf(stderr, "%s: %s%s\n", state.program, words[level], text);
}

void hy3_log_from_handler(const char *text)
{
    const char *const parts[] = {state.line_open ? "\n" : "", state.program, ": ", text, "\n"};

    if (state.silent || state.is_quiet)
        return;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (write(STDERR_FILENO, parts[i], strlen(parts[i])) < 0)
            return;
}

/* "1:02:03", "2:03" */
static void format_duration(char *out, size_t size, double seconds)
{
    long s = (long)(seconds + 0.5);

    if (s >= 3600)
        snprintf(out, size, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, size, "%ld:%02ld", s / 60, s % 60);
}

static void draw(const char *label, int64_t done, int64_t total, const char *text, double now)
{
    enum { WIDTH = 24 };

    char bar[WIDTH + 1], eta[32] = "";
    double share = total > 0 ? (double)done / (double)total : 1;

    for (int i = 0; i < WIDTH; i++)
        bar[i] = (double)i < share * WIDTH ? '#' : '.';
    bar[WIDTH] = '\0';
    if (done >= total)
        format_duration(eta, sizeof eta, now - state.begin);
    else if (done > state.first)
        format_duration(eta, sizeof eta,
                        (now - state.begin) * (double)(total - done) /
                            (double)(done - state.first));
    fprintf(stderr, "%s%s %lld/%lld%s [%s] %3.0f%%  %s%s%s%s",
            hy3_log_is_terminal() ? "\r\033[K" : "", label, (long long)done, (long long)total,
            state.unit, bar, 100 * share, text, *text && *eta ? "  " : "",
            *eta ? (done >= total ? "took " : "ETA ") : "", eta);
    state.line_open = hy3_log_is_terminal() && done < total;
    if (!state.line_open)
        fputc('\n', stderr);
    fflush(stderr);
}

void hy3_log_progress(const char *label, int64_t done, int64_t total, const char *text)
{
    double now = hy3_seconds();

    if (state.silent || threshold() < HY3_LOG_INFO)
        return;
    if (strcmp(label, state.label) != 0) {
        snprintf(state.label, sizeof state.label, "%s", label);
        state.begin = now;
        state.last = hy3_log_is_terminal() ? 0 : now; /* a log shows what takes long */
        state.first = done;
    }
    if (done < total && now - state.last < (hy3_log_is_terminal() ? 0.1 : 5.0))
        return;
    state.last = now;
    draw(label, done, total, text, now);
    if (done >= total)
        state.label[0] = '\0';
}

void hy3_log_progress_bytes(const char *label, int64_t done, int64_t total, double begin)
{
    char text[32];
    double seconds = hy3_seconds() - begin;
    int64_t unit = total < 10000000 ? 1000 : 1000000, shown_total = (total + unit - 1) / unit;

    snprintf(text, sizeof text, "%.1f MB/s", seconds > 0 ? 1e-6 * (double)done / seconds : 0.0);
    state.unit = unit == 1000 ? " kB" : " MB";
    hy3_log_progress(label, done < total ? done / unit : shown_total, shown_total, text);
    state.unit = "";
}
