/* SPDX-License-Identifier: Apache-2.0 */
/* end.c - the last message, and the exit code. */
#include "comm/end.h"

#include "base/log.h"
#include "comm/group.h"

#include <signal.h>
#include <time.h>
#include <unistd.h>

static int code_of_end;

static void leave(int signal)
{
    _exit(code_of_end);
}

int hy3_finish(hy3_status status)
{
    if (status != HY3_OK && hy3_error_text()[0] != '\0')
        hy3_log(status == HY3_STOPPED ? HY3_LOG_INFO : HY3_LOG_ERROR, "%s", hy3_error_text());
    /* all work is done: a lost launcher or peer must not block this process for ever (seen
     * with MPICH's) */
    code_of_end = hy3_exit_code(status);
    signal(SIGALRM, leave);
    alarm(60);
    MPI_Finalize();
    alarm(0);
    return code_of_end;
}

void hy3_abort(hy3_status status, const char *phase)
{
    fprintf(stderr, "%s: error: %s (rank %d, %s)\n", hy3_log_program(), hy3_error_text(),
            hy3_rank(MPI_COMM_WORLD), phase);
    hy3_end_job(status);
}

/* A launcher that learns of the abort drops what it has not passed on yet, and the message with it
 * (seen with hydra, one time in six): so it is given a moment. */
void hy3_end_job(hy3_status status)
{
    const struct timespec moment = {.tv_nsec = 300000000};

    fflush(stderr);
    nanosleep(&moment, NULL);
    MPI_Abort(MPI_COMM_WORLD, hy3_exit_code(status));
    abort();
}
