/* SPDX-License-Identifier: Apache-2.0 */
/* wait.c - test, yield, deadline. */
#include "comm/wait.h"

#include "base/error.h"
#include "base/log.h"
#include "comm/end.h"
#include "comm/group.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Seconds after which a rank that reports ends its process if the job has not ended; after which
 * one that leaves the report to another does report; for its end then. */
enum { OWN_END = 16, OTHERS_END = 20, LATE_END = 4 };

static _Atomic double deadline_s = 1800, end_at; /* end_at: of this process, in hy3_seconds() */

static struct hy3_wait_observer observer; /* zero: none */

/* Polled while the main thread waits. */
static struct {
    struct hy3_wait_library library;
    pthread_t thread;
} watch;

static struct {
    char text[2 * HY3_ERROR_MAX];
    atomic_flag is_said;
} report = {.is_said = ATOMIC_FLAG_INIT};

void hy3_wait_observe(struct hy3_wait_observer by)
{
    observer = by;
}

void hy3_wait_deadline(double seconds)
{
    deadline_s = seconds;
}

double hy3_wait_limit(void)
{
    return deadline_s;
}

double hy3_wait_passed(double *last)
{
    const double most = 1; /* of two looks that follow each other */
    double now = hy3_seconds(), passed = *last > 0 ? now - *last : 0;

    *last = now;
    return passed < most ? passed : most;
}

static void nap(time_t seconds)
{
    struct timespec left = {.tv_sec = seconds};

    while (nanosleep(&left, &left) != 0 && errno == EINTR) /* by a signal */
        continue;
}

/* Writes the report once. Without stdio: a thread that hangs may hold its lock. */
static void say(void)
{
    size_t length = strlen(report.text);

    if (!atomic_flag_test_and_set(&report.is_said) &&
        write(STDERR_FILENO, report.text, length) != (ssize_t)length)
        return; /* nobody hears it */
}

/* The end where something hangs that should end the job. A thread of its own: a signal may be given
 * to one that is stuck in the kernel. */
static void *end_late(void *unused)
{
    while (hy3_seconds() < end_at)
        nap(1);
    say();
    _exit(hy3_exit_code(HY3_EPEER));
    return unused;
}

/* Another rank reports and ends the job. */
static void leave_to_other(double begin)
{
    end_at = begin + OTHERS_END + LATE_END;
    while (hy3_seconds() < begin + OTHERS_END)
        nap(1);
}

/* The message, as far as this rank knows; `where` of other nodes. */
static void compose(const char *phase, const char *why, const char *others)
{
    char host[MPI_MAX_PROCESSOR_NAME] = "?", where[HY3_ERROR_MAX / 2] = "";
    const char *words = watch.library.last_words ? watch.library.last_words() : "";
    int length;

    MPI_Get_processor_name(host, &length);
    if (observer.describe)
        observer.describe(where, sizeof where);
    snprintf(report.text, sizeof report.text,
             "%s: error: rank %d on %s, %s: %s%s%s%s%s%s. Look at the hosts named here "
             "('nvidia-smi', 'dmesg'); the same command goes on from the newest checkpoint\n",
             hy3_log_program(), hy3_rank(MPI_COMM_WORLD), host, phase, why,
             words[0] ? "; NCCL's last message: " : "", words, where[0] ? ". Position: " : "",
             where, others);
}

void hy3_wait_turn(void)
{
    char others[HY3_ERROR_MAX / 2];
    double begin = hy3_seconds();

    if ((observer.claim && !observer.claim()) ||
        (observer.ask && !observer.ask(others, sizeof others)))
        leave_to_other(begin);
}

void hy3_wait_give_up(const char *phase, const char *why)
{
    static atomic_flag begun = ATOMIC_FLAG_INIT;
    char others[HY3_ERROR_MAX / 2] = "";
    double begin = hy3_seconds();
    pthread_t thread;

    if (atomic_flag_test_and_set(&begun)) /* another thread of this rank is at it */
        for (;;)
            nap(OTHERS_END);
    end_at = begin + OWN_END;
    if (pthread_create(&thread, NULL, end_late, NULL) != 0)
        hy3_end_later(HY3_EPEER, OTHERS_END + LATE_END);
    if (observer.claim && !observer.claim())
        leave_to_other(begin);
    compose(phase, why, "");
    if (observer.ask) {
        if (!observer.ask(others, sizeof others))
            leave_to_other(begin);
        compose(phase, why, others);
    }
    say();
    if (watch.library.abandon)
        watch.library.abandon();
    hy3_end_job(HY3_EPEER);
}

/* Seconds of a wait. */
struct waited {
    double last, sum; /* last: of the clock, 0: there was no look yet */
};

/* Ends the job after an error or at the deadline. whose: who does not answer then. */
static void look(struct waited *waited, const char *phase, const char *whose)
{
    const char *text = watch.library.trouble && pthread_equal(pthread_self(), watch.thread)
                           ? watch.library.trouble()
                           : NULL;
    char why[160];

    if (text) {
        snprintf(why, sizeof why, "communication between the GPUs failed: %s", text);
        hy3_wait_give_up(phase, why);
    }
    if (observer.goes_on)
        observer.goes_on();
    if (deadline_s <= 0)
        return;
    waited->sum += hy3_wait_passed(&waited->last);
    if (waited->sum <= deadline_s)
        return;
    snprintf(why, sizeof why, "no answer from %s for %.0f s (ddp_timeout); it has died or hangs",
             whose, deadline_s);
    hy3_wait_give_up(phase, why);
}

void hy3_wait_on(bool (*is_done)(void *context), void *context, const char *phase,
                 const char *whose, bool is_counted)
{
    long often = watch.library.trouble ? 16 : 256;
    struct waited waited = {0};

    if (is_counted && observer.begins)
        observer.begins(phase);
    for (long tries = 0; !is_done(context); tries++) {
        sched_yield();
        if (tries % often == often - 1)
            look(&waited, phase, whose);
    }
}

void hy3_wait_for(bool (*is_done)(void *context), void *context, const char *phase)
{
    hy3_wait_on(is_done, context, phase, "another rank", true);
}

void hy3_wait_own(bool (*is_done)(void *context), void *context, const char *phase)
{
    hy3_wait_on(is_done, context, phase, "another rank or the disk", false);
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
        hy3_wait_give_up(r->phase,
                         "MPI reports a communication error; see the messages of the launcher");
    return done;
}

void hy3_wait_all(int count, MPI_Request *requests, const char *phase)
{
    struct requests r = {.count = count, .requests = requests, .phase = phase};

    hy3_wait_for(are_done, &r, phase);
}

void hy3_wait_watch(const struct hy3_wait_library *library)
{
    watch.library = *library;
    watch.thread = pthread_self();
}

void hy3_wait(MPI_Request *request, const char *phase)
{
    hy3_wait_all(1, request, phase);
}
