/* SPDX-License-Identifier: Apache-2.0 */
/* portions.h - JSONL files cut into pieces of work.
 *
 * The concatenation of all files is cut every `piece_bytes`; piece p belongs to rank p % ranks. A
 * portion is what a piece has of one file. A line belongs to the portion in which it begins, so
 * line ends need not be known before reading (of a file of items, items.h, the same is true of an
 * item). The cut depends on the sizes of the files
 * alone, never on the number of ranks. */
#pragma once

#include "data/sources.h"

struct hy3_portion {
    int64_t piece, begin, end; /* bytes begin..end of the file */
    int file;
    bool is_inside, is_escaped; /* of a file of items: before `begin`, by hy3_items_locate */
    int64_t depth;
};

struct hy3_portion_counts { /* of a portion, after tokenizing the same on all ranks */
    int64_t lines, samples, tokens, label_tokens, longest, truncated, dropped, bad, null_contents;
    int64_t weighted;   /* labels whose weight is not 1 */
    int64_t unlabelled; /* samples that are kept without a label token */
    uint64_t hash;
    int64_t first_line, first_sample, first_token; /* of the portion; lines count from 0 */
};

/* Bytes of a piece for `total` bytes of text: small enough to balance the ranks, few enough to keep
 * the counts of each. */
int64_t hy3_portions_piece_bytes(int64_t total);

/* Test only: pieces of `bytes`; 0: the default. */
void hy3_portions_override(int64_t bytes);

/* Local. All portions in order; the caller owns *out (hy3_free). Empty files have none. */
hy3_status hy3_portions_plan(const struct hy3_source *sources, int count, int64_t piece_bytes,
                             struct hy3_portion **out, int64_t *portions);
