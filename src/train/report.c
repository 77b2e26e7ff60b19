/* SPDX-License-Identifier: Apache-2.0 */
/* report.c - the log, and the counts behind its lines. */
#include "train/report.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/output.h"
#include "train/plot.h"

#include <errno.h>
#include <math.h>
#include <unistd.h>

enum { LOG_LIMIT = 1 << 30 };

struct hy3_report {
    bool writes;
    char directory[HY3_PATH_MAX];
    FILE *log;
    int64_t total_steps, every;
    double begin; /* seconds */
    double last;  /* when the last line was written */
    int64_t tokens, tokens_at_last;
    double loss_sum; /* since the last line */
    int64_t loss_steps, step;
    int64_t tokens_before; /* of earlier parts of the run */
    double elapsed_before;
    struct hy3_plot_point *points; /* [count] */
    size_t count, capacity;
};

/* A line that is an evaluation alone has no loss. */
static double loss_of(const json_t *line, const char *key)
{
    const json_t *value = json_object_get(line, key);

    return value ? json_number_value(value) : (double)NAN;
}

/* Adds a line of the log to the plot unless its step will be repeated, or the evaluation that is
 * made up after it. */
static hy3_status keep_line(struct hy3_report *r, const char *line, size_t size, int64_t last,
                            bool *kept)
{
    hy3_status status = HY3_OK;
    json_t *object = NULL;
    int64_t step;

    *kept = false;
    if (hy3_json_parse(line, size, "train_log.jsonl", &object) != HY3_OK) /* truncated by a crash */
        return HY3_OK;
    step = json_integer_value(json_object_get(object, "step"));
    *kept = json_is_integer(json_object_get(object, "step")) &&
            (json_object_get(object, "loss") ? step <= last : step < last);
    if (!*kept)
        goto done;
    HY3_TRY_DONE(hy3_grow(&r->points, &r->capacity, r->count + 1, sizeof *r->points));
    r->points[r->count++] = (struct hy3_plot_point){(double)step, loss_of(object, "loss"),
                                                    loss_of(object, "eval_loss")};
done:
    json_decref(object);
    return status;
}

/* Keeps the lines of the log up to a step; the steps after it are repeated. */
static hy3_status keep_lines(struct hy3_report *r, const char *path, int64_t last)
{
    hy3_status status = HY3_OK;
    char *text = NULL, *to, *line, *end;
    size_t size;
    bool kept;

    if (!hy3_path_exists(path))
        return HY3_OK;
    HY3_TRY_DONE(hy3_file_read(path, LOG_LIMIT, &text, &size));
    to = line = text;
    while ((end = memchr(line, '\n', size - (size_t)(line - text)))) {
        size_t length = (size_t)(end + 1 - line);

        HY3_TRY_DONE(keep_line(r, line, length - 1, last, &kept));
        if (kept) {
            memmove(to, line, length);
            to += length;
        }
        line = end + 1;
    }
    HY3_TRY_DONE(hy3_output_replace(path, text, (size_t)(to - text)));
done:
    hy3_free(text);
    return status;
}

/* Opens the log: the lines of the run so far stay, those of an earlier run do not. */
static hy3_status open_log(struct hy3_report *r, const char *path, bool goes_on)
{
    int fd;

    if (goes_on && hy3_path_exists(path))
        HY3_TRY(hy3_file_reopen(path, &fd));
    else
        HY3_TRY(hy3_file_create(path, &fd));
    if (!(r->log = fdopen(fd, "a"))) {
        close(fd);
        HY3_FAIL(HY3_EIO, "cannot open '%s': %s", path, strerror(errno));
    }
    return HY3_OK;
}

hy3_status hy3_report_open(const char *output_dir, int64_t total_steps, int64_t every, bool writes,
                           const struct hy3_report_state *from, struct hy3_report **out)
{
    hy3_status status = HY3_OK;
    struct hy3_report *r = NULL;
    char path[HY3_PATH_MAX];

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&r, 1, sizeof *r));
    r->writes = writes;
    r->total_steps = total_steps;
    r->every = every;
    r->begin = r->last = hy3_seconds();
    HY3_TRY_DONE(hy3_path_format(r->directory, sizeof r->directory, "%s", output_dir));
    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/train_log.jsonl", output_dir));
    r->tokens = r->tokens_before = from->tokens;
    r->tokens_at_last = from->tokens - from->tokens_since;
    r->loss_sum = from->loss_sum;
    r->loss_steps = from->loss_steps;
    r->elapsed_before = from->elapsed;
    r->step = from->step;
    if (writes && from->step > 0)
        HY3_TRY_DONE(keep_lines(r, path, from->step));
    if (writes)
        HY3_TRY_DONE(open_log(r, path, from->step > 0));
    *out = HY3_TAKE(r);
done:
    hy3_report_close(r);
    return status;
}

void hy3_report_close(struct hy3_report *r)
{
    if (!r)
        return;
    if (r->log)
        fclose(r->log);
    hy3_free(r->points);
    hy3_free(r);
}

static hy3_status flush(struct hy3_report *r)
{
    if (fflush(r->log) != 0)
        HY3_FAIL(HY3_EIO, "cannot write '%s/train_log.jsonl': %s", r->directory, strerror(errno));
    return HY3_OK;
}

static hy3_status write_line(struct hy3_report *r, const struct hy3_report_step *s, double loss,
                             double rate, double now)
{
    fprintf(r->log,
            "{\"step\": %lld, \"epoch\": %.6g, \"loss\": %.10g, \"grad_norm\": %.10g, "
            "\"learning_rate\": %.17g, \"num_tokens\": %lld, \"tokens_per_second\": %.1f, "
            "\"elapsed_seconds\": %.3f",
            (long long)s->step, s->epoch, loss, s->grad_norm, s->learning_rate,
            (long long)r->tokens, rate, r->elapsed_before + now - r->begin);
    if (s->has_eval)
        fprintf(r->log, ", \"eval_loss\": %.10g", s->eval_loss);
    fputs("}\n", r->log);
    return flush(r);
}

hy3_status hy3_report_step(struct hy3_report *r, const struct hy3_report_step *s)
{
    double now = hy3_seconds(), rate, loss;
    char text[128];

    r->step = s->step;
    r->tokens += s->step_tokens;
    r->loss_sum += s->loss;
    r->loss_steps++;
    if (!r->writes)
        return HY3_OK;
    loss = r->loss_sum / (double)r->loss_steps;
    rate = (double)(r->tokens - r->tokens_at_last) / (now > r->last ? now - r->last : 1e-9);
    snprintf(text, sizeof text, "loss %.4f  lr %.2e  %.0f tok/s", s->loss, s->learning_rate,
             hy3_report_rate(r));
    hy3_log_progress("step", s->step, r->total_steps, text);
    if (s->step % r->every != 0 && s->step != r->total_steps && !s->has_eval)
        return HY3_OK;
    HY3_TRY(write_line(r, s, loss, rate, now));
    HY3_TRY(hy3_grow(&r->points, &r->capacity, r->count + 1, sizeof *r->points));
    r->points[r->count++] =
        (struct hy3_plot_point){(double)s->step, loss, s->has_eval ? s->eval_loss : (double)NAN};
    r->last = now;
    r->tokens_at_last = r->tokens;
    r->loss_sum = 0;
    r->loss_steps = 0;
    return HY3_OK;
}

hy3_status hy3_report_evaluation(struct hy3_report *r, double epoch, double eval_loss)
{
    if (!r->writes)
        return HY3_OK;
    fprintf(r->log, "{\"step\": %lld, \"epoch\": %.6g, \"eval_loss\": %.10g}\n", (long long)r->step,
            epoch, eval_loss);
    HY3_TRY(hy3_grow(&r->points, &r->capacity, r->count + 1, sizeof *r->points));
    r->points[r->count++] = (struct hy3_plot_point){(double)r->step, (double)NAN, eval_loss};
    return flush(r);
}

struct hy3_report_state hy3_report_state(const struct hy3_report *r)
{
    return (struct hy3_report_state){.step = r->step,
                                     .tokens = r->tokens,
                                     .elapsed = r->elapsed_before + hy3_seconds() - r->begin,
                                     .loss_sum = r->loss_sum,
                                     .loss_steps = r->loss_steps,
                                     .tokens_since = r->tokens - r->tokens_at_last};
}

double hy3_report_rate(const struct hy3_report *r)
{
    double elapsed = hy3_seconds() - r->begin;

    return elapsed > 0 ? (double)(r->tokens - r->tokens_before) / elapsed : 0;
}

void hy3_report_plot(const struct hy3_report *report)
{
    if (report->writes && report->count > 0)
        hy3_plot_draw(report->directory, report->points, report->count);
}
