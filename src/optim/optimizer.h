/* optimizer.h - AdamW over ranges of weights: moments, fp32 masters, gradient norm and clipping.
 *
 * A range is a piece of one tensor that this rank updates. The optimizer knows neither units nor ranks: whoever adds the
 * ranges says what they are, and sums the norm over ranks where they are slices. */
#ifndef HY3_OPTIM_OPTIMIZER_H
#define HY3_OPTIM_OPTIMIZER_H

#include "backend/backend.h"

struct hy3_optimizer; /* opaque */

struct hy3_adamw_options {
    double beta1, beta2, eps, weight_decay;
};

struct hy3_range {
    const char *name;  /* of the tensor, for messages; kept until hy3_optimizer_free */
    void *weight;      /* [count] device, compute precision; kept */
    const float *grad; /* [count] device; kept */
    int64_t count;
    bool decay; /* weight decay applies */
};

/* Local. Moments zero; masters are taken from the weights, so these must have been loaded. dtype: of the weights;
 * with fp32 the weight is its own master. The caller owns *out (hy3_optimizer_free). Errors: HY3_ENOMEM. */
hy3_status hy3_optimizer_create(const struct hy3_backend *backend, hy3_dtype dtype,
                                const struct hy3_adamw_options *options,
                                const struct hy3_range *ranges, int count,
                                struct hy3_optimizer **out);
void hy3_optimizer_free(struct hy3_optimizer *optimizer);

/* Local. Sum of squares of all gradients of this rank's ranges, fp64. *bad: the first range whose sum is not
 * finite, -1 if none. Synchronises. */
hy3_status hy3_optimizer_square_sum(struct hy3_optimizer *optimizer, struct hy3_stream *stream,
                                    double *sum, int *bad);

/* Local. One update. step: from 1. grad_scale: factor on every gradient (normalisation and clipping). */
hy3_status hy3_optimizer_step(struct hy3_optimizer *optimizer, struct hy3_stream *stream,
                              int64_t step, double learning_rate, double grad_scale);

/* Local. Elements [first, first + count) of the fp32 master of a range, from or to host memory, for files. With fp32 weights there
 * is no master: get reads the weight, put does nothing. Synchronises. */
hy3_status hy3_optimizer_put_master(struct hy3_optimizer *optimizer, int range, int64_t first,
                                    int64_t count, const float *values);
hy3_status hy3_optimizer_get_master(const struct hy3_optimizer *optimizer, int range, int64_t first,
                                    int64_t count, float *values);

/* The factor of gradient clipping: min(1, max_norm / (norm + 1e-6)); 1 if max_norm is 0.
 * Source: torch.nn.utils.clip_grad_norm_. */
double hy3_clip_factor(double norm, double max_norm);

#endif
