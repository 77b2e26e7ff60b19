/* SPDX-License-Identifier: Apache-2.0 */
/* wait.c - test, yield, deadline. */
#include "comm/wait.h"

#include "base/error.h"
#include "base/log.h"
#include "comm/end.h"
#include "comm/group.h"

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <time.h>

static double deadline_s = 1800;

static struct hy3_wait_observer observer; /* zero: none */

/* Polled while the main thread waits. */
static struct {
    const char *(*trouble)(void);
    void (*abandon)(void);
    pthread_t thread;
} watch;

void hy3_wait_observe(struct hy3_wait_observer by)
{
    observer = by;
}

void hy3_wait_deadline(double seconds)
{
    deadline_s = seconds;
}

static _Noreturn void give_up(const char *phase, const char *why)
{
    const struct timespec long_enough = {.tv_sec = 20};
    char host[MPI_MAX_PROCESSOR_NAME] = "?", where[HY3_ERROR_MAX / 2] = "";
    int length;

    if (observer.claim && !observer.claim()) /* another rank of the node reports and ends the job */
        nanosleep(&long_enough, NULL);
    MPI_Get_processor_name(host, &length);
    if (observer.describe)
        observer.describe(where, sizeof where);
    fprintf(stderr, "%s: error: rank %d on %s, %s: %s%s%s\n", hy3_log_program(),
            hy3_rank(MPI_COMM_WORLD), host, phase, why, where[0] ? ". Position: " : "", where);
    if (watch.abandon)
        watch.abandon();
    hy3_end_job(HY3_EPEER);
}

/* Ends the job after an error or at the deadline. whose: who does not answer then. */
static void look(double *begin, const char *phase, const char *whose)
{
    const char *text =
        watch.trouble && pthread_equal(pthread_self(), watch.thread) ? watch.trouble() : NULL;
    char why[160];

    if (text) {
        snprintf(why, sizeof why, "communication between the GPUs failed: %s", text);
        give_up(phase, why);
    }
    if (observer.goes_on)
        observer.goes_on();
    if (deadline_s <= 0)
        return;
    if (*begin == 0)
        *begin = hy3_seconds();
    if (hy3_seconds() - *begin <= deadline_s)
        return;
    snprintf(why, sizeof why, "no answer from %s for %.0f s (ddp_timeout); it has died or hangs",
             whose, deadline_s);
    give_up(phase, why);
}

static void wait_until(bool (*is_done)(void *context), void *context, const char *phase,
                       const char *whose)
{
    long often = watch.trouble ? 16 : 256;
    double begin = 0;

    for (long tries = 0; !is_done(context); tries++) {
        sched_yield();
        if (tries % often == often - 1)
            look(&begin, phase, whose);
    }
}

void hy3_wait_for(bool (*is_done)(void *context), void *context, const char *phase)
{
    if (observer.begins)
        observer.begins(phase);
    wait_until(is_done, context, phase, "another rank");
}

void hy3_wait_own(bool (*is_done)(void *context), void *context, const char *phase)
{
    wait_until(is_done, context, phase, "another rank or the disk");
}

struct requests {
    int count;
    MPI_Request *requests;
    const char *phase;
};

static bool are_done(void *context)
{
    const struct requests *r = context;
    int done = 0;

    if (MPI_Testall(r->count, r->requests, &done, MPI_STATUSES_IGNORE) != MPI_SUCCESS)
        give_up(r->phase, "MPI reports a communication error; see the messages of the launcher");
    return done;
}

void hy3_wait_all(int count, MPI_Request *requests, const char *phase)
{
    struct requests r = {.count = count, .requests = requests, .phase = phase};

    hy3_wait_for(are_done, &r, phase);
}

void hy3_wait_watch(const char *(*trouble)(void), void (*abandon)(void))
{
    watch.trouble = trouble;
    watch.abandon = abandon;
    watch.thread = pthread_self();
}

void hy3_wait(MPI_Request *request, const char *phase)
{
    hy3_wait_all(1, request, phase);
}
