/* SPDX-License-Identifier: Apache-2.0 */
/* stop.c - a flag set by signals. */
#include "comm/stop.h"

#include "base/log.h"
#include "comm/group.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct {
    int number;
    const char *name;
} requests[] = {
    {SIGINT, "SIGINT"}, {SIGTERM, "SIGTERM"}, {SIGUSR1, "SIGUSR1"}, {SIGXCPU, "SIGXCPU"}};

static const int ignored[] = {SIGHUP, SIGPIPE, SIGUSR2, SIGXFSZ};

enum { REQUESTS = sizeof requests / sizeof *requests, IGNORED = sizeof ignored / sizeof *ignored };

static const double same_s = 0.2; /* timeout and some launchers send a signal twice at once */
static const int code_at_once = 128 + SIGINT;

static volatile sig_atomic_t noted;

static const double every_s = 0.2; /* between two looks for another rank's request */

static double deadline; /* hy3_seconds(), 0: none */

static struct {
    MPI_Comm comm; /* for nothing else */
    pthread_t owner;
    double asked;
    bool is_known; /* a request, to all ranks */
} others = {.comm = MPI_COMM_NULL};

static double interrupted; /* hy3_seconds() of the first SIGINT, 0: none; of the handler */
static const char *volatile announced = "ending";

/* What a handler may call: no stdio. */
static void say(int signal)
{
    char text[200] = "";
    const char *const parts[] = {hy3_stop_name(signal), ": ", announced,
                                 signal == SIGINT ? "; Ctrl-C again ends at once" : ""};
    size_t used = 0;

    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        for (const char *p = parts[i]; *p && used + 1 < sizeof text; p++)
            text[used++] = *p;
    hy3_log_from_handler(text);
}

static void note(int signal)
{
    int saved = errno;
    double now = hy3_seconds();

    if (signal == SIGINT && interrupted > 0 && now - interrupted > same_s)
        _exit(code_at_once);
    if (signal == SIGINT && interrupted <= 0)
        interrupted = now;
    if (!noted) {
        noted = signal;
        say(signal);
    }
    errno = saved;
}

/* but: a signal that is left out, 0: none. */
static void set_mask(int how, int but)
{
    sigset_t set;

    sigemptyset(&set);
    for (int i = 0; i < REQUESTS; i++)
        if (requests[i].number != but)
            sigaddset(&set, requests[i].number);
    sigprocmask(how, &set, NULL);
}

static void set_handlers(void)
{
    struct sigaction action = {.sa_handler = note, .sa_flags = SA_RESTART};

    sigemptyset(&action.sa_mask);
    for (int i = 0; i < REQUESTS; i++)
        sigaction(requests[i].number, &action, NULL);
}

void hy3_stop_hold(void)
{
    for (int i = 0; i < IGNORED; i++) /* SIGXFSZ: a write beyond the size limit fails instead */
        signal(ignored[i], SIG_IGN);
    set_mask(SIG_BLOCK, 0);
}

void hy3_stop_catch_early(void)
{
    set_handlers();
    set_mask(SIG_UNBLOCK, SIGUSR1);
}

void hy3_stop_catch(void)
{
    set_handlers();
    set_mask(SIG_UNBLOCK, 0);
}

void hy3_stop_announce(const char *what)
{
    announced = what;
}

int hy3_stop_noted(void)
{
    return noted;
}

void hy3_stop_join(MPI_Comm comm)
{
    if (hy3_size(comm) == 1)
        return;
    MPI_Comm_dup(comm, &others.comm);
    others.owner = pthread_self();
}

/* Learns of the others' requests, now and then, and tells them of an own one, once. */
static void exchange(void)
{
    static int own;
    double now = hy3_seconds();
    int there = 0;

    if (others.comm == MPI_COMM_NULL || others.is_known ||
        !pthread_equal(others.owner, pthread_self()) || (!noted && now - others.asked < every_s))
        return;
    others.asked = now;
    others.is_known = noted != 0;
    own = noted;
    for (int r = 0; noted && r < hy3_size(others.comm); r++) {
        MPI_Request request;

        if (r == hy3_rank(others.comm))
            continue;
        MPI_Isend(&own, 1, MPI_INT, r, 0, others.comm, &request);
        MPI_Request_free(&request); /* a few bytes: they are on their way */
    }
    if (!noted)
        MPI_Iprobe(MPI_ANY_SOURCE, 0, others.comm, &there, MPI_STATUS_IGNORE);
    if (!there)
        return;
    MPI_Recv(&own, 1, MPI_INT, MPI_ANY_SOURCE, 0, others.comm, MPI_STATUS_IGNORE);
    noted = noted ? noted : own;
    others.is_known = true;
}

void hy3_stop_deadline(double end)
{
    deadline = end;
}

hy3_status hy3_stop_check(const char *work)
{
    bool is_late = deadline > 0 && hy3_seconds() >= deadline;

    exchange();
    if (!noted && !is_late)
        return HY3_OK;
    HY3_FAIL(HY3_STOPPED, "stopped by %s while %s; the same command goes on or begins again",
             noted ? hy3_stop_name(noted) : "max_hours", work);
}

const char *hy3_stop_name(int signal)
{
    for (int i = 0; i < REQUESTS; i++)
        if (requests[i].number == signal)
            return requests[i].name;
    return "a signal";
}
