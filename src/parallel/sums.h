/* SPDX-License-Identifier: Apache-2.0 */
/* sums.h - sums of gradients over ranks, some at a time in progress, completed in the order in
 * which they were begun. */
#pragma once

#include "parallel/pool.h"

enum { HY3_SUMS = 4 }; /* in progress at a time; each holds a unit's gradient */

/* A gradient [ranks,slice] whose sum over the ranks comes to its slices. */
struct hy3_scatter {
    const struct hy3_group *group;
    int64_t slice;
    hy3_dtype dtype;   /* in which it travels: fp32, or a bf16 copy */
    const float *grad; /* [ranks,slice] */
    bool is_lent;      /* grad is of the pool, and is given back as soon as it is not needed */
    float *to;         /* [slice] = the sum, or += if `add` */
    bool add;
};

struct hy3_sum { /* in progress */
    struct hy3_scatter scatter;
    void *own;  /* [slice] of the pool; NULL: it is of an all-reduce */
    void *sent; /* [ranks,slice] of the pool: the bf16 copy; NULL: none */
    struct hy3_transfer transfer;
};

struct hy3_sums { /* zero but for the first two: none */
    const struct hy3_backend *backend;
    struct hy3_pool *pool;
    struct hy3_sum list[HY3_SUMS];
    int first, count;
};

/* Collective. Begins a sum; may complete the oldest one before. */
hy3_status hy3_sums_scatter(struct hy3_sums *sums, struct hy3_stream *stream,
                            const struct hy3_scatter *scatter);

/* Collective. The same of data [count], which becomes its sum over the ranks. */
hy3_status hy3_sums_total(struct hy3_sums *sums, struct hy3_stream *stream,
                          const struct hy3_group *group, float *data, int64_t count);

/* Collective. Completes all that were begun. */
hy3_status hy3_sums_finish(struct hy3_sums *sums, struct hy3_stream *stream);
