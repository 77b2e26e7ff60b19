/* SPDX-License-Identifier: Apache-2.0 */
/* range.h - a span of one tensor that this rank updates, its weights and gradients. */
#pragma once

#include "backend/kernels.h"
#include "base/span.h"

/* Tensors with fewer elements keep fp32 moments, which cost next to nothing there: norms, whose
 * weights differ most from each other. */
enum { HY3_MOMENTS_LEAST = 4096 };

/* The format of the moments of a tensor with so many elements, where `chosen` is asked for. */
static inline enum hy3_moment_format hy3_moment_format(enum hy3_moment_format chosen, int64_t count)
{
    return count < HY3_MOMENTS_LEAST ? HY3_MOMENTS_FP32 : chosen;
}

struct hy3_range {
    const char *name;  /* of the tensor, for messages; kept until hy3_optimizer_free */
    void *weight;      /* [count]; kept */
    hy3_dtype dtype;   /* of the weight */
    bool on_host;      /* the weight is in host memory, else on the device */
    const float *grad; /* [count] device; kept */
    int64_t count;
    bool decay;           /* weight decay applies */
    double rate;          /* factor of the learning rate */
    struct hy3_span norm; /* of the range: what this rank adds to the gradient norm */
    enum hy3_moment_format moments;
    int64_t tensor; /* its number, below 2^32 */
    int64_t first;  /* the tensor's element that is the range's first */
};
