/* SPDX-License-Identifier: Apache-2.0 */
/* expand.h - one path that stands for several files: a directory, or a pattern of a shell. */
#pragma once

#include "base/path.h"

struct hy3_paths { /* zero: none; owned (hy3_paths_free) */
    char **items;
    int count;
    size_t capacity;
};

/* Whether the path does not exist and has what stands for other characters: * ? [. */
bool hy3_path_is_pattern(const char *path);

/* Local. The files that the path stands for, by name, byte by byte: itself; all of a directory, but
 * hidden ones; all that match a pattern. is_skipped: names to leave out, or NULL. Errors:
 * HY3_EUSAGE where there is none, HY3_EIO. */
hy3_status hy3_path_expand(const char *path, bool (*is_skipped)(const char *name),
                           struct hy3_paths *out);
void hy3_paths_free(struct hy3_paths *paths);

/* Of "PATH#N", N from 1, where there is no file of that whole name: copies PATH and sets *count to
 * N. Else copies all of it, and *count is 0. Errors: HY3_EUSAGE, too long. */
hy3_status hy3_path_split_count(const char *path, char out[HY3_PATH_MAX], int64_t *count);
