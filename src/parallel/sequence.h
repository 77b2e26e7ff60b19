/* SPDX-License-Identifier: Apache-2.0 */
/* sequence.h - the ranks of a sequence group share the tokens of a micro-batch (base/zigzag.h):
 * each attends from its own ones to the keys and values of all.
 *
 * Keys and values of a layer are gathered, in the order of the tokens, and their gradients, fp32,
 * summed and scattered: for T tokens of all 2 T K D elements each way, whatever the number of heads
 * and of ranks. */
#pragma once

#include "backend/backend.h"
#include "base/arena.h"

/* Device memory unless HOST; what is written there is the engine's to use until the next layer. */
struct hy3_sequence {
    const struct hy3_backend *backend;
    const struct hy3_group *group;
    int64_t width; /* elements of a token's keys, and of its values */
    hy3_dtype dtype;
    bool backward;
    int64_t T, C;        /* tokens of all ranks, most of a rank: those of the current micro-batch */
    int loaded;          /* layer whose keys and values are there, -1: none */
    void *k, *v;         /* [T,width] */
    float *dk, *dv;      /* [T,width], what this rank adds */
    void *parts;         /* [P,2,C,width] keys and values, or fp32 sums */
    float *own;          /* [2,C,width] sums for this rank */
    int32_t *to_tokens;  /* [2 T] rows of parts that k and v come from */
    int32_t *to_parts;   /* [P,2,C] rows of dk and dv that parts come from */
    int32_t *host_index; /* HOST, pinned: both */
};

/* Local. Memory of the host for up to T tokens. The caller owns it (hy3_sequence_close), also after
 * an error. Errors: HY3_ENOMEM. */
hy3_status hy3_sequence_open(struct hy3_sequence *sequence, int64_t T);
void hy3_sequence_close(struct hy3_sequence *sequence);

/* Lays out device memory for T tokens, and makes them the current ones; with a counting arena it
 * measures. */
void hy3_sequence_take(struct hy3_sequence *sequence, int64_t T, struct hy3_arena *arena);

/* Local. Copies to the device where the rows of the current tokens go. */
hy3_status hy3_sequence_begin(struct hy3_sequence *sequence, struct hy3_stream *stream);

/* Collective on the group. sequence->k and v become those of all tokens, from each rank's own ones,
 * unless they are those of this layer. */
hy3_status hy3_sequence_gather(struct hy3_sequence *sequence, struct hy3_stream *stream, int layer,
                               const void *k, const void *v, int64_t count);

/* Local. dk and dv become 0. */
hy3_status hy3_sequence_open_grads(struct hy3_sequence *sequence, struct hy3_stream *stream);

/* Collective on the group. dk and dv [count,width] of this rank's tokens become the sums over the
 * ranks of sequence->dk and dv. */
hy3_status hy3_sequence_reduce(struct hy3_sequence *sequence, struct hy3_stream *stream, void *dk,
                               void *dv, int64_t count);
