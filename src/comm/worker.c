/* SPDX-License-Identifier: Apache-2.0 */
/* worker.c - one piece of work at a time, handed over by two semaphores. */
#include "comm/worker.h"

#include "base/memory.h"
#include "comm/wait.h"

#include <mpi.h>

#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { NAP = 1000000 }; /* ns that the owner sleeps before it checks its deadline */

/* A clock that nobody sets, where the library can wait by it. */
#if defined __GLIBC__ && __GLIBC_PREREQ(2, 30)
enum { NAP_CLOCK = CLOCK_MONOTONIC };

static int sem_nap(sem_t *semaphore, const struct timespec *until)
{
    return sem_clockwait(semaphore, NAP_CLOCK, until);
}
#else
enum { NAP_CLOCK = CLOCK_REALTIME };

static int sem_nap(sem_t *semaphore, const struct timespec *until)
{
    return sem_timedwait(semaphore, until);
}
#endif

struct hy3_worker {
    pthread_t thread;
    bool has_thread, is_busy; /* known to the owner only */
    sem_t begin, end;
    hy3_work work; /* NULL: the end */
    void *context;
    hy3_status status;
    char text[HY3_ERROR_MAX];
};

static void do_work(struct hy3_worker *w)
{
    w->status = w->work(w->context);
    snprintf(w->text, sizeof w->text, "%s", hy3_error_text());
}

/* A signal ends sem_wait early. */
static void wait_for(sem_t *semaphore)
{
    while (sem_wait(semaphore) != 0)
        ;
}

static void *run(void *worker)
{
    struct hy3_worker *w = worker;

    for (wait_for(&w->begin); w->work; wait_for(&w->begin)) {
        do_work(w);
        sem_post(&w->end);
    }
    return NULL;
}

hy3_status hy3_worker_create(struct hy3_worker **out)
{
    hy3_status status = HY3_OK;
    struct hy3_worker *w = NULL;
    int provided, error = 0;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&w, 1, sizeof *w));
    sem_init(&w->begin, 0, 0);
    sem_init(&w->end, 0, 0);
    MPI_Query_thread(&provided);
    if (provided >= MPI_THREAD_SERIALIZED &&
        (error = pthread_create(&w->thread, NULL, run, w)) != 0)
        HY3_FAIL_DONE(HY3_ENOMEM, "cannot start a thread: %s", strerror(error));
    w->has_thread = provided >= MPI_THREAD_SERIALIZED;
    *out = HY3_TAKE(w);
done:
    hy3_worker_free(w);
    return status;
}

void hy3_worker_free(struct hy3_worker *w)
{
    if (!w)
        return;
    (void)hy3_worker_end(w, "ending a thread");
    w->work = NULL;
    if (w->has_thread) {
        sem_post(&w->begin);
        pthread_join(w->thread, NULL);
    }
    sem_destroy(&w->begin);
    sem_destroy(&w->end);
    hy3_free(w);
}

void hy3_worker_begin(struct hy3_worker *w, hy3_work work, void *context)
{
    HY3_ASSERT(!w->is_busy);
    w->work = work;
    w->context = context;
    w->is_busy = true;
    if (w->has_thread) {
        sem_post(&w->begin);
        return;
    }
    do_work(w);
    sem_post(&w->end);
}

static bool has_ended(void *worker)
{
    struct hy3_worker *w = worker;
    struct timespec until;

    clock_gettime(NAP_CLOCK, &until);
    until.tv_nsec += NAP;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    return sem_nap(&w->end, &until) == 0;
}

hy3_status hy3_worker_end(struct hy3_worker *w, const char *phase)
{
    if (!w->is_busy)
        return HY3_OK;
    hy3_wait_own(has_ended, w, phase);
    w->is_busy = false;
    if (w->status != HY3_OK)
        hy3_error_set(w->text);
    return w->status;
}
