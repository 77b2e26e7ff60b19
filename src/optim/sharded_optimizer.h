/* SPDX-License-Identifier: Apache-2.0 */
/* sharded_optimizer.h - the optimizer over what this rank owns of the trained tensors: the update of a step,
 * and its state by tensor. */
#ifndef HY3_OPTIM_SHARDED_OPTIMIZER_H
#define HY3_OPTIM_SHARDED_OPTIMIZER_H

#include "optim/optimizer.h"
#include "parallel/store.h"

struct hy3_sharded_optimizer {
    const struct hy3_backend *backend;
    struct hy3_store *store;
    struct hy3_optimizer *optimizer;
    struct hy3_range *ranges;
    struct hy3_span *spans; /* [range_count] of the range's tensor */
    int *range_of;          /* [params->count] -1: nothing of it is owned, or it is frozen */
    int range_count;
};

/* Collective on the store's layout. The store is kept. The caller owns *learner
 * (hy3_sharded_optimizer_close), also after an error. */
hy3_status hy3_sharded_optimizer_open(const struct hy3_backend *backend, struct hy3_store *store,
                                      const struct hy3_optimizer_options *options,
                                      struct hy3_sharded_optimizer *learner);
void hy3_sharded_optimizer_close(struct hy3_sharded_optimizer *learner);

/* Collective. The update of step `step` (from 1) with the gradients of a sum of token losses: they
 * are divided by `labels` and clipped to max_norm. *norm: of the whole gradient before clipping.
 * Errors: HY3_EDIVERGED naming the tensor, before any weight has changed. */
hy3_status hy3_sharded_optimizer_step(struct hy3_sharded_optimizer *learner,
                                      struct hy3_stream *stream, int64_t step, double labels,
                                      double max_norm, double learning_rate, double *norm);

/* Local. Elements of a tensor's master or moment as far as this rank owns them: others are ignored
 * by put, left untouched by get. */
hy3_status hy3_sharded_optimizer_put(struct hy3_sharded_optimizer *learner,
                                     enum hy3_optimizer_field field, const struct hy3_param *param,
                                     struct hy3_span span, const float *values);
hy3_status hy3_sharded_optimizer_get(const struct hy3_sharded_optimizer *learner,
                                     enum hy3_optimizer_field field, const struct hy3_param *param,
                                     struct hy3_span span, float *values);

#endif
