/* SPDX-License-Identifier: Apache-2.0 */
/* file.h - directories, whole reads, exact reads and writes.
 *
 * A file that must survive is written through base/output.h, whose steps are here. */
#pragma once

#include "base/path.h"

#include <sys/types.h>

/* Local. Creates `path` and its parents (mode 0777 less umask); an existing directory is fine.
 * Links that were planted (planted.h) on the way are not followed (HY3_EUSAGE). */
hy3_status hy3_directory_create(const char *path);

/* Local. The same, but the directory itself, if it is created, is its owner's alone (0700). */
hy3_status hy3_directory_create_private(const char *path);

/* Local. Creates a directory that is not there; one that is, or a link to one, is an error.
 * is_private: its owner's alone. */
hy3_status hy3_directory_create_new(const char *path, bool is_private);

/* Local. Whether nothing lies in the directory but lock files (lock.h). */
hy3_status hy3_directory_is_empty(const char *path, bool *empty);

/* Local. Removes `path` and everything below it, if it is there. Links are removed, not followed,
 * also if they take the place of a directory meanwhile; what was planted (planted.h) stays
 * (HY3_EUSAGE). */
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

/* Local. The one way to create a file: new and empty, for reading and writing; an old one of this
 * name is removed unless it was planted (planted.h, HY3_EUSAGE), and no link is followed. The
 * caller closes *fd. */
hy3_status hy3_file_create(const char *path, int *fd);

/* Local. The same for a file that only its owner may read and write (0600). */
hy3_status hy3_file_create_private(const char *path, int *fd);

/* Local. Opens for reading and writing what hy3_file_create has made, here or on another rank. */
hy3_status hy3_file_reopen(const char *path, int *fd);

/* Local. Removes the file if it is there, unless it was planted. */
hy3_status hy3_file_remove(const char *path);

/* Local. Gives the file this size, and the space for it where the file system can. */
hy3_status hy3_file_claim(int fd, int64_t bytes, const char *path);

/* Local. Brings what was written to the disk. */
hy3_status hy3_file_flush(int fd, const char *path);

/* Local. Renames a file or a directory and flushes the directory that holds it, without which the
 * new name may be lost. */
hy3_status hy3_file_rename(const char *from, const char *to);
