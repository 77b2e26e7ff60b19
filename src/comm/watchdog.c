/* SPDX-License-Identifier: Apache-2.0 */
/* watchdog.c - compares the number of the watched thread's calls, now and a moment later. */
#include "comm/watchdog.h"

#include "base/error.h"
#include "base/log.h"
#include "comm/wait.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { MOMENT = 200000000 /* ns between two looks */ };

static struct {
    pthread_t watched;
    atomic_bool is_started, ends_job;
    /* of the watched thread */
    _Atomic int64_t calls; /* odd: inside one */
    _Atomic(const char *) call, file;
    _Atomic int line;
    /* of the watchdog */
    pthread_mutex_t lock; /* held while either is called */
    void (*chore)(void);
    void (*tell)(const char *call);
} dog = {.lock = PTHREAD_MUTEX_INITIALIZER};

static bool is_watched(void)
{
    return dog.is_started && pthread_equal(pthread_self(), dog.watched);
}

void hy3_watchdog_enter(const char *call, const char *file, int line)
{
    if (!is_watched())
        return;
    atomic_store_explicit(&dog.call, call, memory_order_relaxed);
    atomic_store_explicit(&dog.file, file, memory_order_relaxed);
    atomic_store_explicit(&dog.line, line, memory_order_relaxed);
    atomic_fetch_add_explicit(&dog.calls, 1, memory_order_release);
}

void hy3_watchdog_leave(void)
{
    if (!is_watched())
        return;
    while (dog.ends_job) /* an abort has freed the call: nobody goes on behind it */
        pause();
    atomic_fetch_add_explicit(&dog.calls, 1, memory_order_release);
}

/* "cudaFree (device.cu line 44)" */
static void name_call(char *out, size_t size)
{
    const char *call = dog.call, *file = dog.file, *slash = strrchr(file, '/');

    snprintf(out, size, "%.*s (%s line %d)", (int)strcspn(call, "(<"), call,
             slash ? slash + 1 : file, dog.line);
}

static void tell(const char *call)
{
    pthread_mutex_lock(&dog.lock);
    if (dog.tell)
        dog.tell(call);
    pthread_mutex_unlock(&dog.lock);
}

static char why[320]; /* of the end, written once */

static void *give_up(void *unused)
{
    hy3_wait_give_up("in a call of the GPU's driver", why);
    return unused;
}

/* seconds: in the call that the watched thread is in. The job is ended by another thread: this one
 * has to answer other nodes meanwhile. */
static void look(double seconds)
{
    char call[160];
    pthread_t thread;

    name_call(call, sizeof call);
    tell(call);
    if (why[0] || hy3_wait_limit() <= 0 || seconds <= hy3_wait_limit())
        return;
    snprintf(why, sizeof why,
             "%s has not returned for %.0f s (ddp_timeout); the GPU, its driver or the network "
             "hangs",
             call, seconds);
    dog.ends_job = true;
    if (pthread_create(&thread, NULL, give_up, NULL) != 0)
        give_up(NULL);
}

static void *watch(void *unused)
{
    const struct timespec moment = {.tv_nsec = MOMENT};
    int64_t last = 0;
    double spent = 0, last_look = 0; /* spent: in the call */

    for (;; nanosleep(&moment, NULL)) {
        int64_t calls = atomic_load_explicit(&dog.calls, memory_order_acquire);
        double passed = hy3_wait_passed(&last_look);

        if (calls != last || calls % 2 == 0) {
            if (last % 2 == 1)
                tell(NULL);
            last = calls;
            spent = 0;
        } else {
            spent += passed;
            look(spent);
        }
        pthread_mutex_lock(&dog.lock);
        if (dog.chore)
            dog.chore();
        pthread_mutex_unlock(&dog.lock);
    }
    return unused;
}

/* Signals are the main thread's. */
void hy3_watchdog_start(void)
{
    pthread_t thread;
    sigset_t all, before;
    int error;

    if (dog.is_started)
        return;
    dog.watched = pthread_self();
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&thread, NULL, watch, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0)
        hy3_log(HY3_LOG_WARN, "cannot start a thread, so a call that hangs is not noticed: %s",
                strerror(error));
    else
        pthread_detach(thread);
    dog.is_started = error == 0;
}

void hy3_watchdog_chore(void (*chore)(void))
{
    pthread_mutex_lock(&dog.lock);
    dog.chore = chore;
    pthread_mutex_unlock(&dog.lock);
    if (chore)
        hy3_watchdog_start();
}

void hy3_watchdog_tell(void (*to)(const char *call))
{
    pthread_mutex_lock(&dog.lock);
    dog.tell = to;
    pthread_mutex_unlock(&dog.lock);
}
