/* SPDX-License-Identifier: Apache-2.0 */
/* end.c - the last message, and the exit code. */
#include "comm/end.h"

#include "base/log.h"
#include "comm/group.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int code_of_end;

static void leave(int signal)
{
    _exit(code_of_end);
}

void hy3_end_later(hy3_status status, unsigned seconds)
{
    code_of_end = hy3_exit_code(status);
    signal(SIGALRM, leave);
    alarm(seconds);
}

/* What was printed may still be in the buffer: a full disk is only noticed now. Whoever has closed
 * standard output wants none of it. */
static hy3_status flush_output(void)
{
    struct pollfd out = {.fd = STDOUT_FILENO, .events = POLLOUT};
    int error;

    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout))
        return HY3_OK;
    error = errno;
    if (error == EBADF || error == EPIPE || fcntl(STDOUT_FILENO, F_GETFD) < 0 ||
        (poll(&out, 1, 0) > 0 && (out.revents & POLLERR))) /* a reader that has left */
        return HY3_OK;
    HY3_FAIL(HY3_EIO, "cannot write to standard output, what was printed is not complete: %s",
             error ? strerror(error) : "an earlier write failed");
}

int hy3_finish(hy3_status status)
{
    if (status == HY3_OK)
        status = flush_output();
    if (status != HY3_OK && hy3_error_text()[0] != '\0')
        hy3_log(status == HY3_STOPPED ? HY3_LOG_INFO : HY3_LOG_ERROR, "%s", hy3_error_text());
    /* all work is done: a lost launcher or peer must not block this process for ever (seen
     * with MPICH's) */
    hy3_end_later(status, 60);
    MPI_Finalize();
    hy3_end_later(status, 0);
    return hy3_exit_code(status);
}

static void leave_at_exit(void)
{
    _exit(code_of_end);
}

/* A launcher that learns of the abort drops what it has not passed on yet, and the message with it
 * (seen with hydra, one time in six): so it is given a moment. MPI_Abort ends in exit(): what
 * others have registered for it could crash or hang while a thread is inside their library. */
void hy3_end_job(hy3_status status)
{
    const struct timespec moment = {.tv_nsec = 300000000};

    fflush(stderr);
    nanosleep(&moment, NULL);
    code_of_end = hy3_exit_code(status);
    atexit(leave_at_exit);
    MPI_Abort(MPI_COMM_WORLD, hy3_exit_code(status));
    abort();
}
