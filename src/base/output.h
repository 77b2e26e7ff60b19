/* SPDX-License-Identifier: Apache-2.0 */
/* output.h - a file that must survive: written under a temporary name, flushed, renamed.
 *
 *     name       PATH.part
 *     create     it, new and empty; or a library does
 *     claim      all of its space, so that a full disk is known before anything is written
 *     write      hy3_file_write_at; other ranks open the file and write their parts of it
 *     flush      by every rank that wrote: on network file systems nobody else can
 *     publish    rename it, and flush the directory, without which the rename may be lost
 *     discard    instead, after a failure
 *
 * A crash at any moment leaves the old file or the new one, never a part. The steps by themselves,
 * for files that become final with their directory, are in base/file.h. */
#pragma once

#include "base/file.h"
#include "base/sha256.h"

struct hy3_output {
    int fd;                  /* of the temporary file, -1: not open */
    bool is_private;         /* only its owner may read it; else umask decides */
    char path[HY3_PATH_MAX]; /* the final name */
    char part[HY3_PATH_MAX]; /* the temporary one, "": there is nothing to discard */
};

/* Local. Forms the names, of a file that is not private, and touches no file. unique: stands in the
 * temporary name, so that jobs that write the same file do not disturb each other; NULL: none.
 * Errors: HY3_EUSAGE. */
hy3_status hy3_output_name(const char *path, const char *unique, struct hy3_output *out);

/* Local. Creates the temporary file; what an earlier run left of it goes. */
hy3_status hy3_output_create(struct hy3_output *out);

/* Local. Opens the temporary file that another rank or a library has created. */
hy3_status hy3_output_open(struct hy3_output *out);
void hy3_output_close(struct hy3_output *out); /* without a flush; it keeps its temporary name */

/* Local. Gives the open file its final size, and its space where the file system can. */
hy3_status hy3_output_claim(const struct hy3_output *out, int64_t bytes);

/* Local. Flushes and closes the open file, which keeps its temporary name. */
hy3_status hy3_output_flush(struct hy3_output *out);

/* Local, on one rank. Flushes and closes the file if it is open, then gives it its final name. */
hy3_status hy3_output_publish(struct hy3_output *out);

/* Local. Removes what has not been published; fine also for an output of zeros. */
void hy3_output_discard(struct hy3_output *out);

/* Local. Replaces `path` by `size` bytes of `data`. */
hy3_status hy3_output_replace(const char *path, const void *data, size_t size);

/* Local. Replaces `to` by a copy of `from`, in pieces. */
hy3_status hy3_output_copy(const char *from, const char *to);

/* The same; what is copied is added to `sha256` (NULL: to none), *bytes are counted. */
hy3_status hy3_output_copy_summed(const char *from, const char *to, struct hy3_sha256 *sha256,
                                  int64_t *bytes);
