/* SPDX-License-Identifier: Apache-2.0 */
/* path.h - names of files, and why a path cannot be used: each reason has its own words. */
#pragma once

#include "base/error.h"

enum { HY3_PATH_MAX = 4096 };

/* Local. Formats a path. Errors: HY3_EUSAGE when it is longer than `size`. */
hy3_status hy3_path_format(char *out, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Local. False only where the system says that there is no such file: what a failing disk or server
 * does not tell is taken for there, so that nothing is left out or replaced for it. */
bool hy3_path_exists(const char *path);
bool hy3_path_is_directory(const char *path);

/* Whether the directory has a file or directory of that name. */
bool hy3_path_exists_in(const char *directory, const char *name);

/* Whether both lead to the same file or directory; false for NULL and what does not exist. */
bool hy3_path_is_same(const char *a, const char *b);

/* The path itself if it exists, else the nearest of its parents that does. out: [HY3_PATH_MAX]. */
void hy3_path_existing(const char *path, char out[HY3_PATH_MAX]);

/* Whether the text, a name or a path, ends so. */
bool hy3_ends_with(const char *text, const char *end);

/* Local. The path of a file in the directory of the running program: of one that is not installed.
 * Errors: HY3_EIO, HY3_EUSAGE. */
hy3_status hy3_path_beside_program(const char *name, char out[HY3_PATH_MAX]);

/* The part of `path` after its last slash. */
const char *hy3_path_name(const char *path);

enum hy3_path_use {
    HY3_PATH_UNCHECKED, /* zero: nothing is known of it */
    HY3_PATH_FILE,      /* read: a regular file */
    HY3_PATH_INPUT,     /* read: a directory */
    HY3_PATH_MODEL,     /* the same, of a model, tokenizer or adapter: also named as on the hub */
    HY3_PATH_OUTPUT     /* written: a directory, which need not be there yet */
};

enum { HY3_PATH_WHY = 512 }; /* bytes that any reason fits into */

/* Local. Whether the path cannot be used so. why: the reason, to stand behind the path in quotes:
 * "does not exist", "is a file, not a directory". */
bool hy3_path_fault(const char *path, enum hy3_path_use use, char *why, size_t size);
