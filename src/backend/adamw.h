/* SPDX-License-Identifier: Apache-2.0 */
/* adamw.h - the factors of an AdamW update, formed once in double and applied in fp32 by every
 * backend: of g = grad_scale grad, m += m_share (g - m), v = v_keep v + v_share g g,
 * w = keep w - step_size m / (sqrt(v) inverse_v_root + eps). Decoupled weight decay and the
 * correction of both averages: Loshchilov and Hutter 2019 (arXiv:1711.05101), algorithm 2.
 *
 * Each operation is rounded, none is fused with another, so that the CPU gives the bits of the GPU
 * for the part of the state that is in host memory. */
#pragma once

#include "backend/kernels.h"

#include <math.h>

struct hy3_adamw_step {
    float keep; /* 1 - lr decay */
    float grad_scale;
    float m_share;         /* 1 - beta1 */
    float v_keep, v_share; /* beta2, 1 - beta2 */
    float step_size;       /* lr / (1 - beta1^step) */
    float inverse_v_root;  /* 1 / sqrt(1 - beta2^step) */
    float eps;
};

static inline struct hy3_adamw_step hy3_adamw_factors(const struct hy3_adamw *a)
{
    struct hy3_adamw_step s;

    s.keep = (float)(1 - a->lr * a->decay);
    s.grad_scale = (float)a->grad_scale;
    s.m_share = (float)(1 - a->beta1);
    s.v_keep = (float)a->beta2;
    s.v_share = (float)(1 - a->beta2);
    s.step_size = (float)(a->lr / (1 - pow(a->beta1, (double)a->step)));
    s.inverse_v_root = (float)(1 / sqrt(1 - pow(a->beta2, (double)a->step)));
    s.eps = (float)a->eps;
    return s;
}
