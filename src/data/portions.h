/* SPDX-License-Identifier: Apache-2.0 */
/* portions.h - JSONL files cut into pieces of work, and the lines of a piece.
 *
 * All files one after the other are cut every `piece_bytes`; piece p belongs to rank p % ranks. A
 * portion is what a piece has of one file. A line belongs to the portion in which it begins, so
 * nobody needs to know where lines end before reading. The cut depends on the sizes of the files
 * alone, never on the number of ranks. */
#ifndef HY3_DATA_PORTIONS_H
#define HY3_DATA_PORTIONS_H

#include "data/sources.h"

enum { HY3_LINE_MAX = 64 << 20 }; /* bytes; a longer line is no conversation */

struct hy3_portion {
    int64_t piece, begin, end; /* bytes begin..end of the file */
    int file;
};

/* Bytes of a piece for so many bytes of text: small enough to share, few enough to keep a row for
 * each. */
int64_t hy3_portions_piece_bytes(int64_t total);

/* Test only: pieces of `bytes`, lines of at most `line_max`; 0: as usual. */
void hy3_portions_override(int64_t bytes, int64_t line_max);

/* Local. All portions in order; the caller owns *out (hy3_free). Empty files have none. */
hy3_status hy3_portions_plan(const struct hy3_source *sources, int count, int64_t piece_bytes,
                             struct hy3_portion **out, int64_t *portions);

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

#endif
