/* SPDX-License-Identifier: Apache-2.0 */
/* path.c - one stat, one access, and what their errors mean to whoever wrote the path. */
#include "base/path.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

hy3_status hy3_path_format(char *out, size_t size, const char *format, ...)
{
    va_list args;
    int used;

    va_start(args, format);
    used = vsnprintf(out, size, format, args);
    va_end(args);
    if (used < 0 || (size_t)used >= size)
        HY3_FAIL(HY3_EUSAGE, "the path '%.200s…' is too long", out);
    return HY3_OK;
}

bool hy3_path_exists(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 ||
           (errno != ENOENT && errno != ENOTDIR && errno != ENAMETOOLONG && errno != ELOOP);
}

bool hy3_path_is_directory(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool hy3_path_exists_in(const char *directory, const char *name)
{
    char path[HY3_PATH_MAX];

    return hy3_path_format(path, sizeof path, "%s/%s", directory, name) == HY3_OK &&
           hy3_path_exists(path);
}

hy3_status hy3_path_beside_program(const char *name, char out[HY3_PATH_MAX])
{
    char program[HY3_PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", program, sizeof program - 1);

    if (length <= 0)
        HY3_FAIL(HY3_EIO, "cannot read '/proc/self/exe': %s", strerror(errno));
    program[length] = '\0';
    *strrchr(program, '/') = '\0'; /* the system's paths are absolute */
    return hy3_path_format(out, HY3_PATH_MAX, "%s/%s", program, name);
}

bool hy3_path_is_same(const char *a, const char *b)
{
    struct stat x, y;

    return a && b && stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev &&
           x.st_ino == y.st_ino;
}

void hy3_path_existing(const char *path, char out[HY3_PATH_MAX])
{
    char *slash;

    snprintf(out, HY3_PATH_MAX, "%s", path);
    while (out[0] != '\0' && !hy3_path_exists(out)) {
        slash = strrchr(out, '/');
        *(slash ? slash + (slash == out && slash[1] != '\0') : out) = '\0';
    }
    if (out[0] == '\0')
        memcpy(out, ".", 2);
}

bool hy3_ends_with(const char *text, const char *end)
{
    size_t length = strlen(text), tail = strlen(end);

    return length >= tail && strcmp(text + length - tail, end) == 0;
}

const char *hy3_path_name(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

static const char *kind_of(mode_t mode)
{
    return S_ISDIR(mode)    ? "a directory"
           : S_ISREG(mode)  ? "a file"
           : S_ISFIFO(mode) ? "a pipe"
           : S_ISSOCK(mode) ? "a socket"
                            : "a device";
}

/* The place of the slash, or the end, behind the first part of the path that fails `is_good`. */
static size_t first_bad(const char *path, bool (*is_good)(const char *path))
{
    char part[HY3_PATH_MAX];
    size_t length = strnlen(path, sizeof part - 1);

    memcpy(part, path, length);
    part[length] = '\0';
    for (size_t i = 1; i < length; i++) {
        bool good;

        if (part[i] != '/')
            continue;
        part[i] = '\0';
        good = is_good(part);
        part[i] = '/';
        if (!good)
            return i;
    }
    return length;
}

static bool may_enter(const char *path)
{
    return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) == 0;
}

/* Nothing has that name: a link without an end, a parent that is missing, or simply that. */
static void say_missing(const char *path, char *why, size_t size)
{
    char target[HY3_PATH_MAX];
    ssize_t length = readlink(path, target, sizeof target - 1);
    size_t bad = first_bad(path, hy3_path_exists);

    if (length >= 0) {
        target[length] = '\0';
        snprintf(why, size, "is a symbolic link to '%.300s', which does not exist", target);
    } else if (path[bad] == '/' && path[bad + strspn(path + bad, "/")] != '\0') {
        snprintf(why, size, "does not exist: there is no directory '%.*s'", (int)bad, path);
    } else {
        snprintf(why, size, "does not exist");
    }
}

/* The part of the path before `end` should be a directory. */
static void say_kind(const char *path, size_t end, char *why, size_t size)
{
    char part[HY3_PATH_MAX];
    struct stat info;

    snprintf(part, sizeof part, "%.*s", (int)end, path);
    snprintf(why, size, "cannot exist: '%.300s' is %s, not a directory", part,
             stat(part, &info) == 0 ? kind_of(info.st_mode) : "something else");
}

static void say_error(const char *path, int error, char *why, size_t size)
{
    size_t bad;

    switch (error) {
    case ENOENT:
        say_missing(path, why, size);
        return;
    case ENOTDIR:
        bad = first_bad(path, hy3_path_is_directory);
        say_kind(path, bad, why, size);
        return;
    case EACCES:
        bad = first_bad(path, may_enter);
        snprintf(why, size, "cannot be reached: no permission to enter '%.*s'", (int)bad, path);
        return;
    case ELOOP:
        snprintf(why, size, "cannot be reached: its symbolic links form a circle");
        return;
    case ENAMETOOLONG:
        snprintf(why, size, "is too long for a path: %zu bytes", strlen(path));
        return;
    default:
        snprintf(why, size, "cannot be reached: %s", strerror(error));
    }
}

static void say_unwritable(const char *verb, const char *directory, char *why, size_t size)
{
    snprintf(why, size,
             errno == EACCES ? "cannot be %s: no permission to write in '%.300s'"
                             : "cannot be %s: '%.300s' is on a read-only file system",
             verb, directory);
}

/* Whether a directory could be made there: the last part that exists decides. */
static bool may_create(const char *path, char *why, size_t size)
{
    char part[HY3_PATH_MAX];

    hy3_path_existing(path, part);
    if (faccessat(AT_FDCWD, part, W_OK | X_OK, AT_EACCESS) == 0)
        return true;
    say_unwritable("created", part, why, size);
    return false;
}

bool hy3_path_fault(const char *path, enum hy3_path_use use, char *why, size_t size)
{
    struct stat info;
    bool wants_file = use == HY3_PATH_FILE;

    if (stat(path, &info) != 0) {
        int error = errno;
        bool is_new = use == HY3_PATH_OUTPUT && error == ENOENT && lstat(path, &info) != 0;

        if (!is_new)
            say_error(path, error, why, size);
        return !is_new || !may_create(path, why, size);
    }
    if (wants_file ? !S_ISREG(info.st_mode) : !S_ISDIR(info.st_mode)) {
        snprintf(why, size, "is %s, not a %s", kind_of(info.st_mode),
                 !wants_file             ? "directory"
                 : S_ISDIR(info.st_mode) ? "file"
                                         : "regular file");
        return true;
    }
    if (use == HY3_PATH_OUTPUT && faccessat(AT_FDCWD, path, W_OK | X_OK, AT_EACCESS) != 0) {
        say_unwritable("written", path, why, size);
        return true;
    }
    if (faccessat(AT_FDCWD, path, wants_file ? R_OK : R_OK | X_OK, AT_EACCESS) != 0) {
        snprintf(why, size, "cannot be read: %s",
                 errno == EACCES ? "no permission" : strerror(errno));
        return true;
    }
    return false;
}
