/* SPDX-License-Identifier: Apache-2.0 */
/* file.h - directories, whole reads, exact reads and writes.
 *
 * A file that must survive is written through base/output.h, whose steps are here. */
#pragma once

#include "base/path.h"

#include <sys/types.h>

/* Local. Creates `path` and its parents (mode 0777 less umask); an existing directory is fine. */
hy3_status hy3_directory_create(const char *path);

/* Local. Whether nothing lies in the directory but lock files (lock.h). */
hy3_status hy3_directory_is_empty(const char *path, bool *empty);

/* Local. Removes `path` and everything below it, if it is there. Links are removed, not
 * followed. */
hy3_status hy3_directory_remove(const char *path);

/* Local. Flushes the directory that holds `path`, without which a rename may be lost. */
hy3_status hy3_directory_sync(const char *path);

/* Local. Reads the whole file into *out, which ends in a NUL beyond *size; the caller owns *out.
 * Files over `limit` bytes are refused (HY3_EFORMAT), so that no hostile file fills the memory. */
hy3_status hy3_file_read(const char *path, size_t limit, char **out, size_t *size);

/* Local. Bytes of the file. */
hy3_status hy3_file_size(const char *path, int64_t *size);

/* Local. Opens for reading. The caller closes *fd. */
hy3_status hy3_file_open(const char *path, int *fd);

/* Local. Exactly `size` bytes at `offset`; a short file is HY3_EFORMAT. `path` is for the
 * message. */
hy3_status hy3_file_read_at(int fd, void *data, size_t size, int64_t offset, const char *path);

/* Local. Exactly `size` bytes at `offset`. */
hy3_status hy3_file_write_at(int fd, const void *data, size_t size, int64_t offset,
                             const char *path);

/* Local. A new, empty file for reading and writing; an old one of this name is removed. The caller
 * closes *fd. */
hy3_status hy3_file_create(const char *path, int *fd);

/* Local. Gives the file this size, and the space for it where the file system can. */
hy3_status hy3_file_claim(int fd, int64_t bytes, const char *path);

/* Local. Brings what was written to the disk. */
hy3_status hy3_file_flush(int fd, const char *path);

/* Local. Renames a file or a directory and flushes the directory that holds it, without which the
 * new name may be lost. */
hy3_status hy3_file_rename(const char *from, const char *to);
