/* report.c - log lines, progress and the plot. */
#include "train/report.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"

#include <errno.h>
#include <math.h>
#include <signal.h>

struct point {
    double step, loss, eval_loss; /* eval_loss NaN: none */
};

struct hy3_report {
    bool writes;
    char directory[HY3_PATH_MAX];
    FILE *log;
    int64_t total_steps, every;
    double begin; /* seconds */
    double last;  /* when the last line was written */
    int64_t tokens, tokens_at_last;
    double loss_sum; /* since the last line */
    int64_t loss_steps;
    struct point *points;
    size_t count, capacity;
};

hy3_status hy3_report_open(const char *output_dir, int64_t total_steps, int64_t every, bool writes,
                           struct hy3_report **out)
{
    hy3_status status = HY3_OK;
    struct hy3_report *r = NULL;
    char path[HY3_PATH_MAX];

    *out = NULL;
    HY3_TRY(hy3_alloc(&r, 1, sizeof *r));
    r->writes = writes;
    r->total_steps = total_steps;
    r->every = every;
    r->begin = r->last = hy3_seconds();
    HY3_TRY(hy3_path_format(r->directory, sizeof r->directory, "%s", output_dir));
    HY3_TRY(hy3_path_format(path, sizeof path, "%s/train_log.jsonl", output_dir));
    if (writes && !(r->log = fopen(path, "we")))
        HY3_FAIL(HY3_EIO, "cannot create '%s': %s", path, strerror(errno));
    *out = r;
    r = NULL;
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

static hy3_status write_line(struct hy3_report *r, const struct hy3_report_step *s, double loss,
                             double rate, double now)
{
    fprintf(r->log,
            "{\"step\": %lld, \"epoch\": %.6g, \"loss\": %.10g, \"grad_norm\": %.10g, "
            "\"learning_rate\": %.17g, \"num_tokens\": %lld, \"tokens_per_second\": %.1f, "
            "\"elapsed_seconds\": %.3f",
            (long long)s->step, s->epoch, loss, s->grad_norm, s->learning_rate,
            (long long)r->tokens, rate, now - r->begin);
    if (s->has_eval)
        fprintf(r->log, ", \"eval_loss\": %.10g", s->eval_loss);
    fputs("}\n", r->log);
    if (fflush(r->log) != 0)
        return hy3_fail(HY3_EIO, __FILE__, __LINE__, "cannot write '%s/train_log.jsonl': %s",
                        r->directory, strerror(errno));
    return HY3_OK;
}

hy3_status hy3_report_step(struct hy3_report *r, const struct hy3_report_step *s)
{
    hy3_status status = HY3_OK;
    double now = hy3_seconds(), rate, loss;
    char text[128];

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
        (struct point){(double)s->step, loss, s->has_eval ? s->eval_loss : (double)NAN};
    r->last = now;
    r->tokens_at_last = r->tokens;
    r->loss_sum = 0;
    r->loss_steps = 0;
done:
    return status;
}

double hy3_report_rate(const struct hy3_report *r)
{
    double elapsed = hy3_seconds() - r->begin;

    return elapsed > 0 ? (double)r->tokens / elapsed : 0;
}

/* Exponential moving average, so that a trend shows through noisy steps. */
static void write_data(const struct hy3_report *r, FILE *to)
{
    double smooth = r->count > 0 ? r->points[0].loss : 0;

    fputs("$loss << END\n", to);
    for (size_t i = 0; i < r->count; i++) {
        smooth += 0.1 * (r->points[i].loss - smooth);
        fprintf(to, "%g %g %g\n", r->points[i].step, r->points[i].loss, smooth);
    }
    fputs("END\n$eval << END\n", to);
    for (size_t i = 0; i < r->count; i++)
        if (isfinite(r->points[i].eval_loss))
            fprintf(to, "%g %g\n", r->points[i].step, r->points[i].eval_loss);
    fputs("END\n", to);
}

static bool has_eval(const struct hy3_report *r)
{
    for (size_t i = 0; i < r->count; i++)
        if (isfinite(r->points[i].eval_loss))
            return true;
    return false;
}

void hy3_report_plot(const struct hy3_report *r)
{
    char path[HY3_PATH_MAX + 16];
    void (*before)(int);
    FILE *gnuplot;
    bool drawn;

    if (!r->writes || r->count == 0)
        return;
    snprintf(path, sizeof path, "%s/loss.png", r->directory);
    remove(path);
    setenv("HY3_PLOT", path, 1);
    before = signal(SIGPIPE, SIG_IGN); /* gnuplot may be missing */
    gnuplot = popen("gnuplot 2>/dev/null", "w");
    if (gnuplot) {
        write_data(r, gnuplot);
        /* the path goes through the environment, so that no character of it can be a command */
        fputs(
            "set terminal pngcairo size 960,600 font 'sans,12'\n"
            "set output system('printf %s \"$HY3_PLOT\"')\n"
            "set xlabel 'step'\nset ylabel 'loss'\nset grid\nset key top right\n"
            "plot $loss using 1:2 with lines lc rgb '#9ecae1' title 'loss', "
            "$loss using 1:3 with lines lw 2 lc rgb '#08519c' title 'smoothed'",
            gnuplot);
        fputs(has_eval(r) ? ", $eval using 1:2 with linespoints pt 7 lc rgb '#d94801' "
                            "title 'evaluation'\n"
                          : "\n",
              gnuplot);
    }
    drawn = gnuplot && pclose(gnuplot) == 0 && hy3_path_exists(path);
    signal(SIGPIPE, before);
    if (!drawn)
        hy3_log(HY3_LOG_WARN,
                "loss.png was not drawn: gnuplot is not installed or failed "
                "(Debian: gnuplot-nox); the figures are in train_log.jsonl");
}
