/* SPDX-License-Identifier: Apache-2.0 */
/* tokenized.h - the work of tokenize.c, which kept.c continues. */
#pragma once

#include "data/lines.h"
#include "data/parts.h"
#include "data/portions.h"
#include "data/sample.h"
#include "data/spool.h"
#include "data/unread.h"
#include "text/text.h"

struct place { /* where a portion of this rank begins in its spools: elements */
    int64_t token, sample, reject;
    int64_t weight; /* -1: the portion has none */
};

struct hy3_tokenized {
    const struct hy3_dataset_options *options;
    const struct hy3_source *sources;
    struct hy3_portion *portions;
    struct hy3_portion_counts *counts;
    struct place *places;
    int64_t count, hashed, total_bytes;
    int rank, ranks;
    struct hy3_lines *lines;
    struct hy3_sampler *sampler;
    struct hy3_spool *ids, *mask, *weights, *samples, *rejects;
    struct place end; /* of the spools */
    struct hy3_unread *unread;
    struct hy3_parts *parts;     /* NULL: the work is too short to be kept */
    int64_t taken_over;          /* pieces of an earlier run */
    struct hy3_text unread_text; /* of the piece under way: what its record has of unread keys */
};
