/* SPDX-License-Identifier: Apache-2.0 */
/* signals.c - signals at a chosen place of a program under test (LD_PRELOAD): before the n-th call
 * of one kind on files whose name has one part, in one rank, which then goes on.
 *
 *     HY3_SIGNAL="CALL RANK N PART SIGNAL[,SIGNAL ...]"   CALL: pwrite, pread, open
 *     HY3_SIGNAL_AFTER=PART                              calls count once such a file was opened
 *     HY3_SIGNAL_MARK=FILE                               created when the signals are sent
 *
 * The rank is the launcher's (PMI_RANK), 0 without one. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static void send_all(const char *signals)
{
    const char *mark = getenv("HY3_SIGNAL_MARK");
    char *end;

    if (mark)
        close(creat(mark, 0600));
    for (const char *at = signals; *at; at = *end ? end + 1 : end) {
        int number = (int)strtol(at, &end, 10);

        if (end == at)
            break;
        kill(getpid(), number);
    }
}

static void pass(const char *call, const char *path)
{
    static int calls, is_after;
    const char *wanted = getenv("HY3_SIGNAL"), *rank = getenv("PMI_RANK");
    const char *file = strrchr(path, '/'), *after = getenv("HY3_SIGNAL_AFTER");
    char name[16], part[256], signals[64];
    int of, n, saved = errno;

    file = file ? file : path;
    if (!after || strstr(file, after))
        is_after = 1;
    if (wanted && is_after &&
        sscanf(wanted, "%15s %d %d %255s %63s", name, &of, &n, part, signals) == 5 &&
        strcmp(name, call) == 0 && of == (rank ? (int)strtol(rank, NULL, 10) : 0) &&
        strstr(file, part) && __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED) == n)
        send_all(signals);
    errno = saved;
}

static void pass_descriptor(const char *call, int fd)
{
    char entry[64], path[4096] = "";
    int saved = errno;

    snprintf(entry, sizeof entry, "/proc/self/fd/%d", fd);
    if (readlink(entry, path, sizeof path - 1) > 0)
        pass(call, path);
    errno = saved;
}

/* clang-format off */
#define NEXT(type, name, parameters) \
    union { void *object; type (*function) parameters; } next = {dlsym(RTLD_NEXT, #name)}
#define TRANSFER(name, call, data_type, offset)                                              \
    ssize_t name(int fd, data_type data, size_t size, offset at);                            \
    ssize_t name(int fd, data_type data, size_t size, offset at)                             \
    {                                                                                        \
        NEXT(ssize_t, name, (int, data_type, size_t, offset));                               \
                                                                                             \
        pass_descriptor(call, fd);                                                           \
        return next.function(fd, data, size, at);                                            \
    }
#define OPEN(name)                                                                           \
    int name(const char *path, int flags, ...);                                              \
    int name(const char *path, int flags, ...)                                               \
    {                                                                                        \
        NEXT(int, name, (const char *, int, ...));                                           \
        va_list args;                                                                        \
        mode_t mode;                                                                         \
                                                                                             \
        va_start(args, flags);                                                               \
        mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;                     \
        va_end(args);                                                                        \
        pass("open", path);                                                                  \
        return next.function(path, flags, mode);                                             \
    }

#define FOPEN(name)                                                                          \
    FILE *name(const char *restrict path, const char *restrict mode);                        \
    FILE *name(const char *restrict path, const char *restrict mode)                         \
    {                                                                                        \
        NEXT(FILE *, name, (const char *, const char *));                                    \
                                                                                             \
        pass("open", path);                                                                  \
        return next.function(path, mode);                                                    \
    }

TRANSFER(pread, "pread", void *, off_t)
TRANSFER(pread64, "pread", void *, off64_t)
TRANSFER(pwrite, "pwrite", const void *, off_t)
TRANSFER(pwrite64, "pwrite", const void *, off64_t)
OPEN(open)
OPEN(open64)
FOPEN(fopen)
FOPEN(fopen64)
/* clang-format on */
