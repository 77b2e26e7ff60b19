/* SPDX-License-Identifier: Apache-2.0 */
/* environment.c - repairs what can be repaired, explains the rest. */
#include "comm/environment.h"

#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    FILES = 1 << 16, /* open files that are asked for */
    LEAST_FILES = 32,
    STACK = 8 << 20, /* bytes that are asked for */
    LEAST_STACK = 1 << 20,
    SHARED = 16 << 20, /* bytes of /dev/shm that MPI needs for a few ranks */
    ROOM = 128 << 20,  /* bytes of address space for libraries, beyond what is reserved by then */
};

/* shorter than this is slower on an idle machine, longer is slower on a busy one */
static const char spin_turns[] = "1000";

/* Descriptors 0 to 2 that were closed at the start lead nowhere: else the next file that is opened
 * gets one of them, and what is printed goes into it. */
static void open_standard(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF &&
            open("/dev/null", fd == STDIN_FILENO ? O_RDONLY : O_WRONLY) < 0)
            return;
}

/* Threads of GNU OpenMP that have no work spin for milliseconds before they sleep, which takes the
 * CPUs from others and from the threads that are still busy where the machine is not idle: 3 to 28
 * times slower. The library reads the number of turns before main and offers no call to change it,
 * so the program is replaced by itself, once: the variable is set then. */
static void shorten_spin(char **argv)
{
    const char *threads = getenv("OMP_NUM_THREADS"), *preload = getenv("LD_PRELOAD");
    char path[4096];
    ssize_t length;

    if (getenv("OMP_WAIT_POLICY") || getenv("GOMP_SPINCOUNT") ||
        (threads && strcmp(threads, "1") == 0) || (preload && strstr(preload, "valgrind")))
        return;
    length = readlink("/proc/self/exe", path, sizeof path - 1);
    if (length <= 0 || setenv("GOMP_SPINCOUNT", spin_turns, 1) != 0)
        return;
    path[length] = '\0';
    execv(path, argv); /* returns only where that is impossible: the long spin stays */
}

/* Raises the soft limit as far as it goes. */
static void raise_limit(__rlimit_resource_t which, rlim_t wanted)
{
    struct rlimit limit;

    if (getrlimit(which, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur >= wanted)
        return;
    limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
    setrlimit(which, &limit);
}

/* Threads get the stack that the limit said when the program was loaded. */
static void widen_stacks(void)
{
    pthread_attr_t attributes;
    size_t bytes = 0;

    raise_limit(RLIMIT_STACK, STACK);
    if (pthread_getattr_default_np(&attributes) != 0)
        return;
    if (pthread_attr_getstacksize(&attributes, &bytes) == 0 && bytes < LEAST_STACK &&
        pthread_attr_setstacksize(&attributes, STACK) == 0)
        pthread_setattr_default_np(&attributes);
    pthread_attr_destroy(&attributes);
}

void hy3_environment_prepare(char **argv)
{
    mode_t mask = umask(0);

    umask(mask & 077); /* what a program cannot read itself is of no use to it */
    open_standard();
    raise_limit(RLIMIT_NOFILE, FILES);
    widen_stacks();
    /* files have one writer and get their names when complete; some file systems have no locks */
    setenv("HDF5_USE_FILE_LOCKING", "FALSE", 0);
    shorten_spin(argv);
}

static const char *starting; /* the program, NULL: MPI is not being started */

static bool is_below(__rlimit_resource_t which, rlim_t least)
{
    struct rlimit limit;

    return getrlimit(which, &limit) == 0 && limit.rlim_cur < least;
}

static bool is_first(void)
{
    const char *rank = getenv("PMI_RANK");

    rank = rank ? rank : getenv("SLURM_PROCID");
    return !rank || strtol(rank, NULL, 10) == 0;
}

/* Before MPI is started: where it fails its launcher ends all ranks, and none has a last word. */
static void warn(const char *what, const char *remedy)
{
    fprintf(stderr, "%s: warning: %s: MPI may not start; %s\n", starting, what, remedy);
}

static void look(void)
{
    struct statvfs shm = {0};

    if (statvfs("/dev/shm", &shm) != 0 || access("/dev/shm", W_OK) != 0 ||
        (double)shm.f_bavail * (double)shm.f_frsize < SHARED)
        warn("/dev/shm is missing, cannot be written or has less than 16 MB left",
             "make room, or with UCX set UCX_TLS=tcp,self");
    if (is_below(RLIMIT_FSIZE, SHARED))
        warn("files may not have 16 MB", "raise the limit: ulimit -f unlimited");
}

static void last_word(void)
{
    if (!starting)
        return;
    fprintf(stderr, "%s: error: MPI could not be started; see the messages above\n", starting);
    _exit(1);
}

void hy3_environment_explain(const char *program)
{
    static bool is_registered;
    bool has_files = !is_below(RLIMIT_NOFILE, LEAST_FILES);

    starting = program;
    if (starting && is_first() && !has_files)
        fprintf(stderr, "%s: error: fewer than %d files may be open: ulimit -n 1024\n", starting,
                LEAST_FILES);
    if (!has_files) /* libraries abort */
        _exit(1);
    if (starting && is_first())
        look();
    if (!is_registered)
        is_registered = atexit(last_word) == 0;
}

hy3_status hy3_environment_check(int threads)
{
    size_t room = ROOM + (size_t)threads * STACK;

    if (is_below(RLIMIT_STACK, LEAST_STACK))
        HY3_FAIL(HY3_ENOMEM, "the stack is limited to less than 1 MB; raise it: ulimit -s 8192");
    return hy3_memory_room(room);
}
