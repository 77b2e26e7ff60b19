/* wait.c - test, yield, deadline. */
#include "comm/wait.h"

#include "base/error.h"
#include "base/log.h"
#include "comm/comm.h"
#include "comm/heartbeat.h"

#include <sched.h>
#include <time.h>

static double deadline_s = 1800;

void hy3_wait_deadline(double seconds)
{
    deadline_s = seconds;
}

static _Noreturn void give_up(const char *phase, const char *why)
{
    const struct timespec long_enough = {.tv_sec = 20};
    char host[MPI_MAX_PROCESSOR_NAME] = "?", where[HY3_ERROR_MAX / 2];
    int length;

    if (!hy3_heartbeat_claim()) /* another rank of this node has the word, and ends the job */
        nanosleep(&long_enough, NULL);
    MPI_Get_processor_name(host, &length);
    hy3_heartbeat_describe(where, sizeof where);
    fprintf(stderr, "%s: error: rank %d on %s, %s: %s%s%s\n", hy3_log_program(),
            hy3_rank(MPI_COMM_WORLD), host, phase, why, where[0] ? ". It stands at " : "", where);
    hy3_end_job(HY3_EPEER);
}

void hy3_wait_all(int count, MPI_Request *requests, const char *phase)
{
    double begin = 0;

    hy3_heartbeat_wait(phase);
    for (long tries = 0;; tries++) {
        int done = 0, code = MPI_Testall(count, requests, &done, MPI_STATUSES_IGNORE);
        char why[160];

        if (code != MPI_SUCCESS)
            give_up(phase, "MPI reports a communication error; see the messages of the launcher");
        if (done)
            return;
        sched_yield();
        if (tries % 256 != 255)
            continue;
        hy3_heartbeat_alive();
        if (deadline_s <= 0)
            continue;
        if (begin == 0)
            begin = hy3_seconds();
        if (hy3_seconds() - begin <= deadline_s)
            continue;
        snprintf(why, sizeof why,
                 "no answer from another rank for %.0f s (ddp_timeout); "
                 "it has vanished or hangs",
                 deadline_s);
        give_up(phase, why);
    }
}

void hy3_wait(MPI_Request *request, const char *phase)
{
    hy3_wait_all(1, request, phase);
}
