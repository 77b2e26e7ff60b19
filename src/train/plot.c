/* SPDX-License-Identifier: Apache-2.0 */
/* plot.c - gnuplot draws the loss: it is given commands and data, never a path, since paths come
 * from users and gnuplot opens some names as commands of a shell. */
#include "train/plot.h"

#include "base/error.h"
#include "base/file.h"
#include "base/log.h"
#include "base/output.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

/* Exponential moving average, so that a trend shows through noisy steps. */
static void write_data(const struct hy3_plot_point *points, size_t count, FILE *to)
{
    double smooth = NAN;

    fputs("$loss << END\n", to);
    for (size_t i = 0; i < count; i++) {
        if (isnan(points[i].loss)) /* of an evaluation alone */
            continue;
        smooth = isnan(smooth) ? points[i].loss : smooth + 0.1 * (points[i].loss - smooth);
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

static void write_commands(const struct hy3_plot_point *points, size_t count, FILE *to)
{
    write_data(points, count, to);
    fputs(
        "set terminal pngcairo size 960,600 font 'sans,12'\n"
        "set xlabel 'step'\nset ylabel 'loss'\nset grid\nset key top right\n"
        "plot $loss using 1:2 with lines lc rgb '#9ecae1' title 'loss', "
        "$loss using 1:3 with lines lw 2 lc rgb '#08519c' title 'smoothed'",
        to);
    fputs(has_eval(points, count) ? ", $eval using 1:2 with linespoints pt 7 lc rgb '#d94801' "
                                    "title 'evaluation'\n"
                                  : "\n",
          to);
}

/* Starts gnuplot, which reads commands from `in` and draws into `out`. */
static bool start(int in, int out, pid_t *process)
{
    char *const arguments[] = {"gnuplot", "-d", NULL}; /* without the user's own settings */
    posix_spawn_file_actions_t files;
    int error;

    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_adddup2(&files, in, STDIN_FILENO);
    posix_spawn_file_actions_adddup2(&files, out, STDOUT_FILENO);
    posix_spawn_file_actions_addopen(&files, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    error = posix_spawnp(process, arguments[0], &files, NULL, arguments, environ);
    posix_spawn_file_actions_destroy(&files);
    return error == 0;
}

/* Whether gnuplot could draw into `out`. */
static bool draw(const struct hy3_plot_point *points, size_t count, int out)
{
    int ends[2], status = -1;
    pid_t process;
    FILE *to;

    if (pipe2(ends, O_CLOEXEC) != 0)
        return false;
    to = fdopen(ends[1], "w");
    if (to && start(ends[0], out, &process)) {
        close(ends[0]);
        ends[0] = -1;
        write_commands(points, count, to);
        fclose(to);
        to = NULL;
        while (waitpid(process, &status, 0) < 0 && errno == EINTR)
            ;
    }
    if (ends[0] >= 0)
        close(ends[0]);
    if (to)
        fclose(to);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

void hy3_plot_draw(const char *directory, const struct hy3_plot_point *points, size_t count)
{
    char path[HY3_PATH_MAX];
    struct hy3_output picture;
    struct stat info;
    void (*before)(int) = signal(SIGPIPE, SIG_IGN); /* gnuplot may end early */
    bool drawn = false;

    if (hy3_path_format(path, sizeof path, "%s/loss.png", directory) == HY3_OK &&
        hy3_output_name(path, NULL, &picture) == HY3_OK && hy3_output_create(&picture) == HY3_OK) {
        drawn = draw(points, count, picture.fd) && fstat(picture.fd, &info) == 0 &&
                info.st_size > 0 && hy3_output_publish(&picture) == HY3_OK;
        hy3_output_discard(&picture);
    }
    signal(SIGPIPE, before);
    if (!drawn)
        hy3_log(HY3_LOG_WARN,
                "loss.png was not drawn: gnuplot is not installed or failed "
                "(Debian: gnuplot-nox); the figures are in train_log.jsonl");
}
