/* SPDX-License-Identifier: Apache-2.0 */
/* batch.h - a micro-batch on the host. */
#pragma once

#include "data/deal.h"

/* Of a micro-batch that ranks share: what is said of samples is then of segments of them. */
struct hy3_cut {
    int parts;            /* ranks that share it; 0: none, it is whole and there is nothing below */
    int64_t T;            /* tokens of all of them */
    int64_t *lengths;     /* [S] tokens of the sample that a segment is of */
    int64_t *first, *end; /* [S] of all T tokens: the sample's first, the segment's end */
    int64_t *starts, *samples; /* of the whole samples */
};

/* The samples of one micro-batch of one rank, concatenated without padding; host memory. */
struct hy3_batch {
    int64_t T, S;       /* tokens, samples; both may be 0 */
    int64_t longest;    /* tokens of the longest sample */
    int64_t step;       /* of the micro-batch, from 0 */
    int64_t labels;     /* targets that are not -1 */
    bool is_weighted;   /* the dataset has weights */
    int32_t *ids;       /* [T] */
    int32_t *positions; /* [T] position in the sample */
    int32_t *targets; /* [T] the token to predict, -1: none. The last token of a sample has none */
    uint8_t *mask;    /* [T] as read from the dataset; the targets derive from it */
    float *weights;   /* [T] of the loss of each target, 0: none; read only where is_weighted */
    int64_t *starts;  /* [S+1] */
    int64_t *samples; /* [S] dataset indices */
    int64_t token_capacity, sample_capacity;
    struct hy3_cut cut; /* where ranks share the micro-batch: these are parts of samples */
    struct hy3_deal deal;
    int64_t dealt; /* step that `deal` is of, -1: none */
};
