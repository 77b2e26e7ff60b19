/* SPDX-License-Identifier: Apache-2.0 */
/* sharded_optimizer.h - the optimizer over what this rank owns of the trained tensors: the update
 * of a step, and masters and moments by tensor. */
#pragma once

#include "optim/optimizer.h"
#include "parallel/store.h"

/* The elements of a tensor that this rank updates. */
struct hy3_owned_range {
    struct hy3_span span; /* of the tensor */
    int part, index;      /* where its state is, and its number there */
};

struct hy3_sharded_optimizer {
    const struct hy3_backend *backend;
    struct hy3_store *store;
    struct hy3_optimizer *parts[2]; /* with the state on the device, in host memory; NULL: none */
    struct hy3_range *ranges[2];    /* of the parts */
    int counts[2];
    struct hy3_owned_range *owned; /* [owned_count] */
    int *owned_of;                 /* [params->count] -1: nothing of it is owned, or it is frozen */
    int owned_count;
};

/* Collective on the store's layout. The store is kept. offload: of the state; it stands in place of
 * options->placement. The caller owns *out (hy3_sharded_optimizer_close), also after an error. */
hy3_status hy3_sharded_optimizer_open(const struct hy3_backend *backend, struct hy3_store *store,
                                      const struct hy3_optimizer_options *options,
                                      const struct hy3_offloading *offload,
                                      struct hy3_sharded_optimizer *out);
void hy3_sharded_optimizer_close(struct hy3_sharded_optimizer *optimizer);

/* Bytes of moments and masters. */
size_t hy3_sharded_optimizer_bytes(const struct hy3_sharded_optimizer *optimizer);

/* Collective. The update of step `step` (from 1) with the gradients of a sum of token losses: they
 * are divided by `weight`, of all labels (their number, where all weights are 1), and clipped to
 * max_norm. *norm: of the whole gradient before clipping. Errors: HY3_EDIVERGED naming the tensor,
 * before any weight has changed. */
hy3_status hy3_sharded_optimizer_step(struct hy3_sharded_optimizer *optimizer,
                                      struct hy3_stream *stream, int64_t step, double weight,
                                      double max_norm, double learning_rate, double *norm);

/* Masters and moments of the trained tensors. kept: what this rank owns; get leaves other elements
 * untouched. Putting a master sets the weights in the store as well, those of other ranks too. */
struct hy3_values hy3_sharded_optimizer_values(struct hy3_sharded_optimizer *optimizer);
