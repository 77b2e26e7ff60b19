/* SPDX-License-Identifier: Apache-2.0 */
/* plot.c - gnuplot draws the loss. */
#include "train/plot.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"

#include <math.h>
#include <signal.h>

/* Exponential moving average, so that a trend shows through noisy steps. */
static void write_data(const struct hy3_plot_point *points, size_t count, FILE *to)
{
    double smooth = points[0].loss;

    fputs("$loss << END\n", to);
    for (size_t i = 0; i < count; i++) {
        smooth += 0.1 * (points[i].loss - smooth);
        fprintf(to, "%g %g %g\n", points[i].step, points[i].loss, smooth);
    }
    fputs("END\n$eval << END\n", to);
    for (size_t i = 0; i < count; i++)
        if (isfinite(points[i].eval_loss))
            fprintf(to, "%g %g\n", points[i].step, points[i].eval_loss);
    fputs("END\n", to);
}

static bool has_eval(const struct hy3_plot_point *points, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (isfinite(points[i].eval_loss))
            return true;
    return false;
}

void hy3_plot_draw(const char *directory, const struct hy3_plot_point *points, size_t count)
{
    char path[HY3_PATH_MAX + 16];
    void (*before)(int);
    FILE *gnuplot;
    bool drawn;

    snprintf(path, sizeof path, "%s/loss.png", directory);
    remove(path);
    setenv("HY3_PLOT", path, 1);
    before = signal(SIGPIPE, SIG_IGN); /* gnuplot may be missing */
    gnuplot = popen("gnuplot 2>/dev/null", "w");
    if (gnuplot) {
        write_data(points, count, gnuplot);
        /* the path goes through the environment, so that no character of it can be a command */
        fputs(
            "set terminal pngcairo size 960,600 font 'sans,12'\n"
            "set output system('printf %s \"$HY3_PLOT\"')\n"
            "set xlabel 'step'\nset ylabel 'loss'\nset grid\nset key top right\n"
            "plot $loss using 1:2 with lines lc rgb '#9ecae1' title 'loss', "
            "$loss using 1:3 with lines lw 2 lc rgb '#08519c' title 'smoothed'",
            gnuplot);
        fputs(has_eval(points, count) ? ", $eval using 1:2 with linespoints pt 7 lc rgb '#d94801' "
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
