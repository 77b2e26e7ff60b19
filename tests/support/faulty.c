/* SPDX-License-Identifier: Apache-2.0 */
/* faulty.c - a fault at a counted place of a program under test (LD_PRELOAD): calls of the system
 * on files below one directory are counted, and the n-th one meets a signal or an error, or
 * transfers only half.
 *
 *     HY3_FAULT_ROOT=DIR      the directory
 *     HY3_FAULT="N KIND"      KIND: KILL, TERM, INT, USR1, HUP: the signal comes before the call;
 *                             SHORT; ENOSPC, EROFS, EDQUOT, EIO, EINTR: it fails; with a "+", and
 *                             so do all later ones that write. 0: none. NODE, LINK: it stops
 *                             there, for somebody who sees the line in HY3_FAULT_LOG
 *     HY3_FAULT_LOG=FILE      gets a line "N CALL PATH" for every call (N = 0), or for the one hit
 *     HY3_FAULT_RANK=R        the rank (PMI_RANK) that counts; 0 if not set
 *
 * Of C's own streams opening, flushing and closing are seen; what else the C library calls inside
 * is not. */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum { NOTHING, HALF = -1 }; /* or an error number */

static const struct kind {
    const char *name;
    int signal, error;
} kinds[] = {{"KILL", SIGKILL, 0},  {"TERM", SIGTERM, 0},   {"INT", SIGINT, 0},
             {"USR1", SIGUSR1, 0},  {"HUP", SIGHUP, 0},     {"SHORT", 0, HALF},
             {"ENOSPC", 0, ENOSPC}, {"ENOSPC+", 0, ENOSPC}, {"EROFS", 0, EROFS},
             {"EROFS+", 0, EROFS},  {"EDQUOT", 0, EDQUOT},  {"EDQUOT+", 0, EDQUOT},
             {"EIO", 0, EIO},       {"EIO+", 0, EIO},       {"EINTR", 0, EINTR},
             {"NODE", SIGSTOP, 0},  {"LINK", SIGSTOP, 0}};

static const struct kind *kind_of(const char *name)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    return NULL;
}

/* Past our own names of the calls. */
static void note(long number, const char *call, const char *path)
{
    const char *log = getenv("HY3_FAULT_LOG");
    char line[4200];
    int size = snprintf(line, sizeof line, "%ld %s %s\n", number, call, path);
    long fd = log ? syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND, 0666) : -1;

    if (fd < 0)
        return;
    (void)syscall(SYS_write, (int)fd, line, (size_t)size);
    syscall(SYS_close, (int)fd);
}

static bool is_watched(const char *path)
{
    const char *root = getenv("HY3_FAULT_ROOT"), *rank = getenv("PMI_RANK"),
               *wanted = getenv("HY3_FAULT_RANK");

    return root && strncmp(path, root, strlen(root)) == 0 &&
           strtol(rank ? rank : "0", NULL, 10) == strtol(wanted ? wanted : "0", NULL, 10);
}

/* What happens to this call. */
static int fate(const char *call, const char *path, bool writes)
{
    static atomic_long calls;
    static atomic_bool broken;
    const char *wanted = getenv("HY3_FAULT");
    int saved = errno;
    const struct kind *kind;
    char name[16];
    long at, number;

    if (!wanted || !is_watched(path) || sscanf(wanted, "%ld %15s", &at, name) != 2)
        return NOTHING;
    kind = kind_of(name);
    number = atomic_fetch_add(&calls, 1) + 1;
    if (at == 0 || number == at)
        note(number, call, path);
    errno = saved;
    if (!kind || (number != at && !(writes && atomic_load(&broken))))
        return NOTHING;
    if (strchr(name, '+'))
        atomic_store(&broken, true);
    if (kind->signal != 0)
        kill(getpid(), kind->signal);
    return kind->error;
}

static int fate_of_fd(const char *call, int fd, bool writes)
{
    char entry[64], path[4096];
    int saved = errno;
    long size;

    snprintf(entry, sizeof entry, "/proc/self/fd/%d", fd);
    size = syscall(SYS_readlinkat, AT_FDCWD, entry, path, sizeof path - 1);
    errno = saved;
    if (size < 0)
        return NOTHING;
    path[size] = '\0';
    return fate(call, path, writes);
}

/* A relative path is one of the working directory. */
static int fate_of_path(const char *call, const char *path, bool writes)
{
    char full[8192], directory[4096];

    if (path[0] == '/' || syscall(SYS_getcwd, directory, sizeof directory) < 0)
        return fate(call, path, writes);
    snprintf(full, sizeof full, "%s/%s", directory, path);
    return fate(call, full, writes);
}

#define NEXT(type, name, parameters) \
    union {                          \
        void *object;                \
        type(*function) parameters;  \
    } next = {dlsym(RTLD_NEXT, #name)}

#define FAIL_IF(error)     \
    do {                   \
        int fault = error; \
                           \
        if (fault > 0) {   \
            errno = fault; \
            return -1;     \
        }                  \
    } while (0)

/* Calls that transfer bytes. */
#define TRANSFER(name, writes, parameters, arguments) \
    ssize_t name parameters;                          \
    ssize_t name parameters                           \
    {                                                 \
        int fault = fate_of_fd(#name, fd, writes);    \
        NEXT(ssize_t, name, parameters);              \
                                                      \
        if (fault > 0) {                              \
            errno = fault;                            \
            return -1;                                \
        }                                             \
        if (fault == HALF && size > 1)                \
            size /= 2;                                \
        return next.function arguments;               \
    }

#define OF_FD(type, name, writes, parameters, arguments) \
    type name parameters;                                \
    type name parameters                                 \
    {                                                    \
        NEXT(type, name, parameters);                    \
                                                         \
        FAIL_IF(fate_of_fd(#name, fd, writes));          \
        return next.function arguments;                  \
    }

#define OF_PATH(type, name, writes, parameters, arguments) \
    type name parameters;                                  \
    type name parameters                                   \
    {                                                      \
        NEXT(type, name, parameters);                      \
                                                           \
        FAIL_IF(fate_of_path(#name, path, writes));        \
        return next.function arguments;                    \
    }

/* Shown as "create" where it is for writing. */
#define OPEN(name)                                                       \
    int name(const char *path, int flags, ...);                          \
    int name(const char *path, int flags, ...)                           \
    {                                                                    \
        NEXT(int, name, (const char *, int, ...));                       \
        bool writes = (flags & O_ACCMODE) != O_RDONLY;                   \
        va_list arguments;                                               \
        mode_t mode = 0;                                                 \
                                                                         \
        va_start(arguments, flags);                                      \
        if (flags & (O_CREAT | O_TMPFILE))                               \
            mode = va_arg(arguments, mode_t);                            \
        va_end(arguments);                                               \
        FAIL_IF(fate_of_path(writes ? "create" : "open", path, writes)); \
        return next.function(path, flags, mode);                         \
    }

/* clang-format off */
OPEN(open)
OPEN(open64)
TRANSFER(read, false, (int fd, void *data, size_t size), (fd, data, size))
TRANSFER(write, true, (int fd, const void *data, size_t size), (fd, data, size))
TRANSFER(pread, false, (int fd, void *data, size_t size, off_t at), (fd, data, size, at))
TRANSFER(pread64, false, (int fd, void *data, size_t size, off64_t at), (fd, data, size, at))
TRANSFER(pwrite, true, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at))
TRANSFER(pwrite64, true, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
OF_FD(int, fsync, true, (int fd), (fd))
OF_FD(int, fdatasync, true, (int fd), (fd))
OF_FD(int, ftruncate, true, (int fd, off_t size), (fd, size))
OF_FD(int, ftruncate64, true, (int fd, off64_t size), (fd, size))
OF_FD(int, fallocate, true, (int fd, int mode, off_t at, off_t size), (fd, mode, at, size))
OF_FD(int, fallocate64, true, (int fd, int mode, off64_t at, off64_t size), (fd, mode, at, size))
OF_PATH(int, mkdir, true, (const char *path, mode_t mode), (path, mode))
OF_PATH(int, unlink, true, (const char *path), (path))
OF_PATH(int, remove, true, (const char *path), (path))
OF_PATH(int, rmdir, true, (const char *path), (path))
OF_PATH(int, rename, true, (const char *path, const char *to), (path, to))
OF_PATH(int, link, true, (const char *path, const char *to), (path, to))
OF_FD(int, sync_file_range, true, (int fd, off64_t at, off64_t size, unsigned flags), (fd, at, size, flags))
OF_FD(int, fstat, false, (int fd, struct stat *info), (fd, info))
OF_FD(int, fstat64, false, (int fd, struct stat64 *info), (fd, info))
OF_FD(off_t, lseek, false, (int fd, off_t at, int whence), (fd, at, whence))
OF_FD(off64_t, lseek64, false, (int fd, off64_t at, int whence), (fd, at, whence))
OF_PATH(int, stat, false, (const char *path, struct stat *info), (path, info))
OF_PATH(int, stat64, false, (const char *path, struct stat64 *info), (path, info))
OF_PATH(int, lstat, false, (const char *path, struct stat *info), (path, info))
OF_PATH(int, statvfs, false, (const char *path, struct statvfs *disk), (path, disk))
OF_PATH(int, faccessat, false, (int at, const char *path, int mode, int flags), (at, path, mode, flags))
OF_PATH(ssize_t, readlink, false, (const char *path, char *to, size_t size), (path, to, size))
OF_PATH(int, mkstemp, true, (char *path), (path))

/* clang-format on */

/* The descriptor is gone, as with a real close that reports what it found. */
int close(int fd)
{
    int fault = fate_of_fd("close", fd, true);
    NEXT(int, close, (int));
    int result = next.function(fd);

    if (fault <= 0 || result != 0)
        return result;
    errno = fault;
    return -1;
}

DIR *opendir(const char *path)
{
    int fault = fate_of_path("opendir", path, false);
    NEXT(DIR *, opendir, (const char *));

    if (fault > 0) {
        errno = fault;
        return NULL;
    }
    return next.function(path);
}

#define FOPEN(name)                                          \
    FILE *name(const char *path, const char *mode);          \
    FILE *name(const char *path, const char *mode)           \
    {                                                        \
        int fault = fate_of_path(#name, path, *mode != 'r'); \
        NEXT(FILE *, name, (const char *, const char *));    \
                                                             \
        if (fault > 0) {                                     \
            errno = fault;                                   \
            return NULL;                                     \
        }                                                    \
        return next.function(path, mode);                    \
    }

/* clang-format off */
FOPEN(fopen)
FOPEN(fopen64)

/* clang-format on */

/* The stream is gone, as the descriptor of close. */
int fclose(FILE *stream)
{
    int fault = fate_of_fd("fclose", fileno(stream), true);
    NEXT(int, fclose, (FILE *));
    int result = next.function(stream);

    if (fault <= 0 || result != 0)
        return result;
    errno = fault;
    return EOF;
}

int fflush(FILE *stream)
{
    int fault = stream ? fate_of_fd("fflush", fileno(stream), true) : NOTHING;
    NEXT(int, fflush, (FILE *));

    if (fault > 0) {
        errno = fault;
        return EOF;
    }
    return next.function(stream);
}
