/* SPDX-License-Identifier: Apache-2.0 */
/* file.c - POSIX file access with texts that say what to do. */
#include "base/file.h"

#include "base/memory.h"
#include "base/planted.h"
#include "base/size.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { DEPTH = 32 }; /* of directories: hy3 makes three */

/* Creates one directory of a path, the part of it that ends here; an existing one is fine. */
static hy3_status create_one(const char *path, const char *part, bool is_last, mode_t mode)
{
    char why[HY3_PATH_WHY];
    struct stat info;
    int error = mkdir(part, mode) == 0 ? 0 : errno;

    if (error == 0)
        return HY3_OK;
    if (lstat(part, &info) == 0 && S_ISLNK(info.st_mode))
        HY3_TRY(hy3_planted_refuse(part));
    /* nobody need write to what lies above: /home is root's */
    if (error == EEXIST && (is_last || !hy3_path_is_directory(part)) &&
        hy3_path_fault(part, HY3_PATH_OUTPUT, why, sizeof why))
        HY3_FAIL(HY3_EIO, "cannot create the directory '%s': '%s' %s", path, part, why);
    if (!hy3_path_is_directory(part))
        HY3_FAIL(HY3_EIO, "cannot create the directory '%s': %s", part, strerror(error));
    return HY3_OK;
}

/* last: the mode of the directory itself. */
static hy3_status create_directory(const char *path, mode_t last)
{
    char part[HY3_PATH_MAX];

    HY3_TRY(hy3_path_format(part, sizeof part, "%s", path));
    for (char *p = part + 1; *part; p++) {
        char kept = *p;

        if (kept != '/' && kept != '\0')
            continue;
        *p = '\0';
        HY3_TRY(create_one(path, part, kept == '\0', kept == '\0' ? last : 0777));
        *p = kept;
        if (kept == '\0')
            break;
    }
    return HY3_OK;
}

hy3_status hy3_directory_create(const char *path)
{
    return create_directory(path, 0777);
}

hy3_status hy3_directory_create_private(const char *path)
{
    return create_directory(path, 0700);
}

hy3_status hy3_directory_create_new(const char *path, bool is_private)
{
    if (mkdir(path, is_private ? 0700 : 0777) != 0)
        HY3_FAIL(HY3_EIO, "cannot create the directory '%s': %s", path, strerror(errno));
    return HY3_OK;
}

hy3_status hy3_directory_is_empty(const char *path, bool *empty)
{
    DIR *open = opendir(path);
    const struct dirent *entry;
    char why[HY3_PATH_WHY];

    if (!open && hy3_path_fault(path, HY3_PATH_INPUT, why, sizeof why))
        HY3_FAIL(HY3_EIO, "'%s' %s", path, why);
    if (!open)
        HY3_FAIL(HY3_EIO, "cannot look into '%s': %s", path, strerror(errno));
    *empty = true;
    while ((entry = readdir(open)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
            strncmp(entry->d_name, ".hy3_lock", 9) != 0)
            *empty = false;
    closedir(open);
    return HY3_OK;
}

static hy3_status remove_entry(int at, const char *name, const char *path, int depth);

/* Removes what is in an open directory. A reading may miss names while others go, so it is repeated
 * until nothing is found. */
static hy3_status empty_directory(DIR *open, const char *path, int depth)
{
    const struct dirent *entry;
    bool found = true;

    while (found) {
        found = false;
        rewinddir(open);
        while ((entry = readdir(open))) {
            if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
                continue;
            HY3_TRY(remove_entry(dirfd(open), entry->d_name, path, depth + 1));
            found = true;
        }
    }
    return HY3_OK;
}

/* Removes the name, and what is below it if it is a directory, which is opened without following a
 * link. path: of the whole, for the message. */
static hy3_status remove_entry(int at, const char *name, const char *path, int depth)
{
    hy3_status status = HY3_OK;
    int error = unlinkat(at, name, 0) == 0 ? 0 : errno, fd = -1;
    DIR *open = NULL;

    if (error == 0 || error == ENOENT)
        return HY3_OK;
    if (error == EISDIR || error == EPERM)
        fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd >= 0 && !(open = fdopendir(fd)))
        close(fd);
    if (!open || depth == DEPTH)
        HY3_FAIL_DONE(HY3_EIO, "cannot remove '%s': %s", path,
                      open ? "its directories are too deep" : strerror(error));
    HY3_TRY_DONE(empty_directory(open, path, depth));
    if (unlinkat(at, name, AT_REMOVEDIR) != 0 && errno != ENOENT)
        HY3_FAIL_DONE(HY3_EIO, "cannot remove '%s': %s", path, strerror(errno));
done:
    if (open)
        closedir(open);
    return status;
}

hy3_status hy3_directory_remove(const char *path)
{
    HY3_TRY(hy3_planted_refuse(path));
    return remove_entry(AT_FDCWD, path, path, 0);
}

hy3_status hy3_directory_sync(const char *path)
{
    hy3_status status = HY3_OK;
    char directory[HY3_PATH_MAX];
    char *slash;
    int fd = -1;

    HY3_TRY_DONE(hy3_path_format(directory, sizeof directory, "%s", path));
    if ((slash = strrchr(directory, '/')))
        slash[slash == directory] = '\0';
    else
        memcpy(directory, ".", 2);
    if ((fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
        HY3_FAIL_DONE(HY3_EIO, "cannot open the directory '%s': %s", directory, strerror(errno));
    if (fsync(fd) != 0 && errno != EINVAL && errno != ENOTSUP) /* some file systems cannot */
        HY3_FAIL_DONE(HY3_EIO, "cannot flush the directory '%s': %s", directory, strerror(errno));
done:
    if (fd >= 0)
        close(fd);
    return status;
}

hy3_status hy3_file_open(const char *path, int *fd)
{
    struct stat info;
    char why[HY3_PATH_WHY];
    int error;

    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us */
    error = errno;
    if (*fd >= 0 && fstat(*fd, &info) == 0 && S_ISREG(info.st_mode))
        return HY3_OK;
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
    if (hy3_path_fault(path, HY3_PATH_FILE, why, sizeof why))
        HY3_FAIL(HY3_EIO, "'%s' %s", path, why);
    HY3_FAIL(HY3_EIO, "cannot open '%s': %s", path, strerror(error));
}

hy3_status hy3_file_size(const char *path, int64_t *size)
{
    struct stat info;
    char why[HY3_PATH_WHY];

    if (hy3_path_fault(path, HY3_PATH_FILE, why, sizeof why))
        HY3_FAIL(HY3_EIO, "'%s' %s", path, why);
    if (stat(path, &info) != 0)
        HY3_FAIL(HY3_EIO, "cannot open '%s': %s", path, strerror(errno));
    *size = (int64_t)info.st_size;
    return HY3_OK;
}

hy3_status hy3_file_read(const char *path, size_t limit, char **out, size_t *size)
{
    hy3_status status = HY3_OK;
    struct stat info;
    char *data = NULL;
    int fd = -1;

    *out = NULL;
    *size = 0;
    HY3_TRY_DONE(hy3_file_open(path, &fd));
    if (fstat(fd, &info) != 0)
        HY3_FAIL_DONE(HY3_EIO, "cannot read '%s': %s", path, strerror(errno));
    if ((uint64_t)info.st_size > limit)
        HY3_FAIL_DONE(HY3_EFORMAT, "'%s' has %lld bytes, more than the %zu such a file may have",
                      path, (long long)info.st_size, limit);
    HY3_TRY_DONE(hy3_alloc(&data, (size_t)info.st_size + 1, 1));
    HY3_TRY_DONE(hy3_file_read_at(fd, data, (size_t)info.st_size, 0, path));
    *out = data;
    *size = (size_t)info.st_size;
    data = NULL;
done:
    if (fd >= 0)
        close(fd);
    hy3_free(data);
    return status;
}

/* A read met the end of the file, which may lie before its offset. */
static hy3_status fail_at_end(int fd, int64_t needed, int64_t at, const char *path)
{
    struct stat info;

    if (fstat(fd, &info) == 0 && info.st_size < at)
        at = info.st_size;
    HY3_FAIL(HY3_EFORMAT, "'%s' ends at byte %lld, %lld bytes too early", path, (long long)at,
             (long long)(needed - at));
}

hy3_status hy3_file_read_at(int fd, void *data, size_t size, int64_t offset, const char *path)
{
    for (size_t done = 0; done < size;) {
        ssize_t got = pread(fd, (char *)data + done, size - done, (off_t)offset + (off_t)done);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            HY3_FAIL(HY3_EIO, "cannot read '%s': %s", path, strerror(errno));
        if (got == 0)
            return fail_at_end(fd, offset + (int64_t)size, offset + (int64_t)done, path);
        done += (size_t)got;
    }
    return HY3_OK;
}

hy3_status hy3_file_write_at(int fd, const void *data, size_t size, int64_t offset,
                             const char *path)
{
    for (size_t done = 0; done < size;) {
        ssize_t put =
            pwrite(fd, (const char *)data + done, size - done, (off_t)offset + (off_t)done);

        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            HY3_FAIL(HY3_EIO, "cannot write '%s': %s", path, strerror(errno));
        if (put == 0)
            HY3_FAIL(HY3_EIO, "cannot write '%s': the file system takes no byte at %lld", path,
                     (long long)offset + (long long)done);
        done += (size_t)put;
    }
    return HY3_OK;
}

static hy3_status create_file(const char *path, mode_t mode, int *fd)
{
    HY3_TRY(hy3_planted_refuse(path));
    unlink(path); /* what cannot be removed is in the way of what follows */
    if ((*fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode)) < 0)
        HY3_FAIL(HY3_EIO, "cannot create '%s': %s", path, strerror(errno));
    return HY3_OK;
}

hy3_status hy3_file_create(const char *path, int *fd)
{
    return create_file(path, 0666, fd);
}

hy3_status hy3_file_create_private(const char *path, int *fd)
{
    return create_file(path, 0600, fd);
}

hy3_status hy3_file_reopen(const char *path, int *fd)
{
    struct stat info;

    *fd = open(path, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (*fd < 0)
        HY3_FAIL(HY3_EIO, "cannot open '%s': %s", path, strerror(errno));
    if (fstat(*fd, &info) == 0 && S_ISREG(info.st_mode))
        return HY3_OK;
    close(*fd);
    *fd = -1;
    HY3_FAIL(HY3_EIO, "cannot open '%s': it is not a regular file", path);
}

hy3_status hy3_file_remove(const char *path)
{
    HY3_TRY(hy3_planted_refuse(path));
    if (unlink(path) != 0 && errno != ENOENT)
        HY3_FAIL(HY3_EIO, "cannot remove '%s': %s", path, strerror(errno));
    return HY3_OK;
}

hy3_status hy3_file_claim(int fd, int64_t bytes, const char *path)
{
    char size[HY3_SIZE_TEXT];
    int error;
    bool short_of_space =
        fallocate(fd, 0, 0, (off_t)bytes) != 0 &&
        (errno == ENOSPC || errno == EDQUOT || errno == EFBIG); /* else: not supported */

    error = errno;
    if (!short_of_space && ftruncate(fd, (off_t)bytes) != 0) {
        error = errno;
        short_of_space = true;
    }
    if (short_of_space)
        HY3_FAIL(HY3_EIO, "no space for the %s of '%s': %s; free some or choose another directory",
                 hy3_size_text((double)bytes, size), path, strerror(error));
    return HY3_OK;
}

hy3_status hy3_file_flush(int fd, const char *path)
{
    if (fsync(fd) != 0)
        HY3_FAIL(HY3_EIO, "cannot flush '%s': %s", path, strerror(errno));
    return HY3_OK;
}

hy3_status hy3_file_rename(const char *from, const char *to)
{
    if (rename(from, to) != 0)
        HY3_FAIL(HY3_EIO, "cannot rename '%s' to '%s': %s", from, to, strerror(errno));
    return hy3_directory_sync(to);
}
