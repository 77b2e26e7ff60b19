/* SPDX-License-Identifier: Apache-2.0 */
/* lines.h - the lines of a portion of a JSONL file, read in bounded memory. */
#pragma once

#include "data/portions.h"

enum { HY3_LINE_MAX = 64 << 20 }; /* bytes; a longer line is no conversation */

/* Test only: lines of at most `bytes`; 0: the default. */
void hy3_lines_override(int64_t bytes);

struct hy3_lines; /* opaque: a reader that can be used for one portion after the other */

hy3_status hy3_lines_create(struct hy3_lines **out);
void hy3_lines_free(struct hy3_lines *lines);

/* Local. Opens the file of a portion. Errors: HY3_EIO, HY3_EFORMAT when it has become shorter. */
hy3_status hy3_lines_begin(struct hy3_lines *lines, const struct hy3_source *source,
                           const struct hy3_portion *portion);

/* Local. The next line without its end and without a byte order mark, valid until the next call;
 * *line is NULL after the last. A line over HY3_LINE_MAX has *size = -1. */
hy3_status hy3_lines_next(struct hy3_lines *lines, const char **line, int64_t *size);

/* 64-bit xxh3 of all bytes of the lines returned for this portion. */
uint64_t hy3_lines_hash(const struct hy3_lines *lines);
