/* SPDX-License-Identifier: Apache-2.0 */
/* failing.c - a disk that fails, for programs under test (LD_PRELOAD): from the n-th call on, one
 * kind of system call on one file ends in an error on one rank.
 *
 *     HY3_FAIL="CALL RANK N END"   CALL: pwrite, pread, fsync, close, fallocate, ftruncate; END: of
 *     the file's path
 *
 * The rank is the launcher's (PMI_RANK).
 *
 *     HY3_FAIL_LOCKS=1    flock and the locks of fcntl are not available (ENOLCK) */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/types.h>
#include <unistd.h>

static bool ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);

    return length >= tail && strcmp(text + length - tail, end) == 0;
}

static bool fails(const char *call, int fd)
{
    static int calls;
    const char *wanted = getenv("HY3_FAIL"), *own = getenv("PMI_RANK");
    char name[16], end[256], entry[64], path[4096] = "";
    int rank, first, saved = errno;

    if (!wanted || !own || sscanf(wanted, "%15s %d %d %255s", name, &rank, &first, end) != 4 ||
        strcmp(name, call) != 0 || rank != (int)strtol(own, NULL, 10))
        return false;
    snprintf(entry, sizeof entry, "/proc/self/fd/%d", fd);
    if (readlink(entry, path, sizeof path - 1) < 0 || !ends_with(path, end)) {
        errno = saved;
        return false;
    }
    errno = saved;
    return ++calls >= first;
}

/* Both names of a call: with the 64 that old sources ask for, and without. */
#define DEFINE(type, name, error, parameters, arguments) \
    type name parameters;                                \
    type name parameters                                 \
    {                                                    \
        union {                                          \
            void *object;                                \
            type(*function) parameters;                  \
        } next = {dlsym(RTLD_NEXT, #name)};              \
                                                         \
        if (fails(call_of(#name), fd)) {                 \
            errno = (error);                             \
            return -1;                                   \
        }                                                \
        return next.function arguments;                  \
    }

/* "pwrite" for "pwrite64". */
static const char *call_of(const char *name)
{
    static const char *const calls[] = {"pwrite", "pread",     "fsync",
                                        "close",  "fallocate", "ftruncate"};

    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
        if (strncmp(name, calls[i], strlen(calls[i])) == 0)
            return calls[i];
    return name;
}

/* clang-format off */
DEFINE(ssize_t, pwrite, ENOSPC, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
DEFINE(ssize_t, pwrite64, ENOSPC, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
DEFINE(ssize_t, pread, EIO, (int fd, void *data, size_t size, off_t at), (fd, data, size, at))
DEFINE(ssize_t, pread64, EIO, (int fd, void *data, size_t size, off64_t at), (fd, data, size, at))
DEFINE(int, fsync, EIO, (int fd), (fd))
DEFINE(int, fallocate, ENOSPC, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size))
DEFINE(int, fallocate64, ENOSPC, (int fd, int mode, off64_t at, off64_t size), (fd, mode, at, size))
DEFINE(int, ftruncate, EFBIG, (int fd, off_t size), (fd, size))
DEFINE(int, ftruncate64, EFBIG, (int fd, off64_t size), (fd, size))

/* clang-format on */

/* The descriptor is gone, as with a real close that reports what it found. */
int close(int fd)
{
    union {
        void *object;
        int (*function)(int);
    } next = {dlsym(RTLD_NEXT, "close")};

    int fate = fails("close", fd) ? EDQUOT : 0;
    int result = next.function(fd);

    if (fate == 0)
        return result;
    errno = fate;
    return -1;
}

int flock(int fd, int operation)
{
    union {
        void *object;
        int (*function)(int, int);
    } next = {dlsym(RTLD_NEXT, "flock")};

    if (!getenv("HY3_FAIL_LOCKS"))
        return next.function(fd, operation);
    errno = ENOLCK;
    return -1;
}

static bool is_lock(int command)
{
    return command == F_SETLK || command == F_SETLKW || command == F_GETLK ||
           command == F_OFD_SETLK || command == F_OFD_SETLKW || command == F_OFD_GETLK;
}

/* The third argument is an int, a pointer or nothing: as a register it is passed on in any case. */
#define DEFINE_FCNTL(name)                                  \
    int name(int fd, int command, ...);                     \
    int name(int fd, int command, ...)                      \
    {                                                       \
        union {                                             \
            void *object;                                   \
            int (*function)(int, int, void *);              \
        } next = {dlsym(RTLD_NEXT, #name)};                 \
        va_list arguments;                                  \
        void *argument;                                     \
                                                            \
        va_start(arguments, command);                       \
        argument = va_arg(arguments, void *);               \
        va_end(arguments);                                  \
        if (!getenv("HY3_FAIL_LOCKS") || !is_lock(command)) \
            return next.function(fd, command, argument);    \
        errno = ENOLCK;                                     \
        return -1;                                          \
    }

DEFINE_FCNTL(fcntl)
DEFINE_FCNTL(fcntl64)
