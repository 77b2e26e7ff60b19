/* SPDX-License-Identifier: Apache-2.0 */
/* head.h - from the output of the last layer to logits and losses, and back: final norm, head and
 * cross-entropy. Losses are calculated for tokens that have a label, in chunks: all logits never
 * exist at a time. */
#pragma once

#include "backend/backend.h"
#include "model/acts.h"

/* Device memory. */
struct hy3_head_buffers {
    void *n;            /* [T,H] after the final norm */
    float *r;           /* [T] */
    void *rows, *drows; /* [T,H] tokens that have a label, and their gradient */
    void *dn;           /* [T,H] */
    float *logits;      /* [chunk,V] */
    void *dlogits;      /* [chunk,V]; the logits themselves in fp32 */
    float *loss, *lse;  /* [T] */
    int64_t chunk;      /* rows whose logits are held at a time */
};

/* The arguments of the head. Device memory. */
struct hy3_head {
    const struct hy3_backend *backend;
    struct hy3_stream *stream;
    const struct hy3_shape *shape;
    hy3_dtype dtype;
    const void *norm, *table; /* weights [H], [V,H] */
    float *norm_grad, *table_grad;
    float smoothing; /* of the labels */
    int64_t T, labels;
    const int32_t *label_token;    /* [labels] token of a label */
    const int32_t *label_position; /* [T] number of a token's label, -1: none */
    const int32_t *targets;        /* [labels] token to predict */
    const float *weights;          /* [labels] of its loss; NULL: all 1 */
    const void *x;                 /* [T,H] output of the last layer */
    void *d;                       /* [T,H] its gradient */
    struct hy3_head_buffers buffers;
};

void hy3_head_buffers_take(const struct hy3_shape *shape, const struct hy3_layer_size *size,
                           bool backward, struct hy3_arena *arena, struct hy3_head_buffers *out);

/* x -> n. */
hy3_status hy3_head_norm(const struct hy3_head *head);

/* Logits, in fp32, of rows [first, first + count) of a [T,H] buffer; count is at most chunk. */
hy3_status hy3_head_logits(const struct hy3_head *head, const void *rows, int64_t first,
                           int64_t count);

/* n -> loss of each label; training: and drows and the gradient of the table. */
hy3_status hy3_head_loss(const struct hy3_head *head, bool training);

/* drows -> d, and the gradient of the norm. */
hy3_status hy3_head_backward(const struct hy3_head *head);
