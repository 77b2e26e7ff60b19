/* SPDX-License-Identifier: Apache-2.0 */
/* optimizer.h - AdamW over ranges of weights: moments, masters, gradient norm and clipping.
 *
 * A range is a span of one tensor that this rank updates. The optimizer knows neither units nor
 * ranks: the caller describes the ranges and sums the norm over ranks.
 *
 * The fp32 master of a bf16 weight is the weight and 16 bits more (base/dtype.h, hy3_split), so the
 * state of a weight is 10 bytes instead of 12, and less where moments are not fp32 (moments.h). An
 * fp32 weight is its own master. State in host memory is updated by the CPU. */
#pragma once

#include "backend/placement.h"
#include "model/values.h"
#include "optim/range.h"

struct hy3_optimizer; /* opaque */

struct hy3_optimizer_options {
    double beta1, beta2, eps, weight_decay;
    /* factor of the learning rate of the factors B of an adapter: LoRA+ (Hayou et al. 2024);
     * hy3_sharded_optimizer_open gives it to their ranges */
    double b_rate;
    struct hy3_placement placement; /* of moments and masters */
    /* of tensors of HY3_MOMENTS_LEAST elements or more; hy3_sharded_optimizer_open gives it to
     * their ranges */
    enum hy3_moment_format moments;
    uint64_t seed; /* for rounding bf16 moments */
};

/* Local. Moments are zero; masters are the weights, also if these change before the first step. The
 * caller owns *out (hy3_optimizer_free). Errors: HY3_ENOMEM, HY3_EIO. */
hy3_status hy3_optimizer_create(const struct hy3_backend *backend,
                                const struct hy3_optimizer_options *options,
                                const struct hy3_range *ranges, int count,
                                struct hy3_optimizer **out);
void hy3_optimizer_free(struct hy3_optimizer *optimizer);

/* Bytes of moments and masters. */
size_t hy3_optimizer_bytes(const struct hy3_optimizer *optimizer);

/* Local. Sum of squares of the gradients in the norm's part of each range, fp64. *sums: [ranges],
 * owned by the optimizer, until the next call. Synchronises. */
hy3_status hy3_optimizer_square_sums(struct hy3_optimizer *optimizer, struct hy3_stream *stream,
                                     const double **sums);

/* Local. The gradients are there: copies of the coming update wait for what the stream has been
 * given so far, and not for what follows. hy3_optimizer_step does it where it was not done. */
hy3_status hy3_optimizer_ready(struct hy3_optimizer *optimizer, struct hy3_stream *stream);

/* Local. One update. step: from 1. grad_scale: factor on every gradient (normalisation and
 * clipping). */
hy3_status hy3_optimizer_step(struct hy3_optimizer *optimizer, struct hy3_stream *stream,
                              int64_t step, double learning_rate, double grad_scale);

/* Local. Elements of a range's master or moment, from or to host memory, for files. Putting a
 * master sets the weight too. Synchronises. */
hy3_status hy3_optimizer_put(struct hy3_optimizer *optimizer, enum hy3_field field, int range,
                             struct hy3_span span, const float *values);
hy3_status hy3_optimizer_get(const struct hy3_optimizer *optimizer, enum hy3_field field, int range,
                             struct hy3_span span, float *values);

/* The factor of gradient clipping: min(1, max_norm / (norm + 1e-6)); 1 if max_norm is 0.
 * Source: torch.nn.utils.clip_grad_norm_. */
double hy3_clip_factor(double norm, double max_norm);
