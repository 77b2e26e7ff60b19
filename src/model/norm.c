/* SPDX-License-Identifier: Apache-2.0 */
/* norm.c - the kernel's arguments. */
#include "model/norm.h"

static struct hy3_rmsnorm norm(const struct hy3_layer *l, enum hy3_param_kind kind, const void *x,
                               void *y, float *r)
{
    return (struct hy3_rmsnorm){.T = l->tokens.T,
                                .H = l->shape->hidden,
                                .eps = (float)l->shape->rms_eps,
                                .dtype = l->dtype,
                                .x = x,
                                .w = l->params.weight[kind],
                                .y = y,
                                .r = r,
                                .dw = l->params.grad[kind]};
}

hy3_status hy3_norm_forward(const struct hy3_layer *l, enum hy3_param_kind kind, const void *x,
                            void *y, float *r)
{
    struct hy3_rmsnorm n = norm(l, kind, x, y, r);

    return l->backend->kernels.rmsnorm_forward(l->stream, &n);
}

hy3_status hy3_norm_backward(const struct hy3_layer *l, enum hy3_param_kind kind, const void *x,
                             void *y, float *r, const void *dy, void *dx)
{
    struct hy3_rmsnorm n = norm(l, kind, x, y, r);

    n.dy = dy;
    n.dx = dx;
    return l->backend->kernels.rmsnorm_backward(l->stream, &n);
}
