/* SPDX-License-Identifier: Apache-2.0 */
/* mlp.c - a gated MLP, and the dense part of a layer around it. */
#include "model/mlp.h"

#include "model/linear.h"
#include "model/norm.h"

static const struct hy3_mlp dense = {HY3_P_GATE, HY3_P_UP, HY3_P_DOWN};

static struct hy3_swiglu swiglu_of(const struct hy3_layer *l, const struct hy3_mlp *m)
{
    int64_t I = 0, H = 0;

    hy3_kind_matrix(l->shape, m->gate, &I, &H);
    return (struct hy3_swiglu){.N = l->tokens.T,
                               .I = I,
                               .ld = I,
                               .dtype = l->dtype,
                               .gate = l->acts->gate,
                               .up = l->acts->up,
                               .y = l->acts->act};
}

hy3_status hy3_mlp_forward(const struct hy3_layer *l, const struct hy3_mlp *m, bool accumulate,
                           void *y)
{
    struct hy3_layer_acts *a = l->acts;
    struct hy3_swiglu swiglu = swiglu_of(l, m);

    HY3_TRY(hy3_linear_forward(l, m->gate, a->n2, false, a->gate));
    HY3_TRY(hy3_linear_forward(l, m->up, a->n2, false, a->up));
    HY3_TRY(l->backend->kernels.swiglu_forward(l->stream, &swiglu));
    if (!l->replay)
        HY3_TRY(hy3_linear_forward(l, m->down, a->act, accumulate, y));
    return HY3_OK;
}

hy3_status hy3_mlp_backward(const struct hy3_layer *l, const struct hy3_mlp *m, const void *dy,
                            bool accumulate, void *dn)
{
    struct hy3_layer_acts *a = l->acts;
    struct hy3_swiglu swiglu = swiglu_of(l, m);

    HY3_TRY(hy3_linear_backward(l, m->down, a->act, dy, false, l->scratch->dact));
    swiglu.dy = l->scratch->dact;
    swiglu.dgate = a->gate;
    swiglu.dup = a->up;
    HY3_TRY(l->backend->kernels.swiglu_backward(l->stream, &swiglu));
    HY3_TRY(hy3_linear_backward(l, m->gate, a->n2, a->gate, accumulate, dn));
    return hy3_linear_backward(l, m->up, a->n2, a->up, true, dn);
}

hy3_status hy3_dense_part_forward(const struct hy3_layer *l)
{
    struct hy3_layer_acts *a = l->acts;

    HY3_TRY(hy3_norm_forward(l, HY3_P_POST_NORM, a->mid, a->n2, a->r2));
    if (!l->replay)
        HY3_TRY(l->backend->device.copy(l->stream, a->out, a->mid, hy3_layer_bytes(l)));
    return hy3_mlp_forward(l, &dense, true, a->out);
}

hy3_status hy3_dense_part_backward(const struct hy3_layer *l, void *d)
{
    const struct hy3_layer_acts *a = l->acts;

    HY3_TRY(hy3_mlp_backward(l, &dense, d, false, l->scratch->dn));
    return hy3_norm_backward(l, HY3_P_POST_NORM, a->mid, a->n2, a->r2, l->scratch->dn, d);
}
