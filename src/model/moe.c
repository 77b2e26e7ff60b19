/* SPDX-License-Identifier: Apache-2.0 */
/* moe.c - the parts of a layer with experts: route, experts, combine. */
#include "model/layer.h"
#include "model/linear.h"
#include "model/mlp.h"
#include "model/norm.h"

static const struct hy3_mlp shared = {HY3_P_SHARED_GATE, HY3_P_SHARED_UP, HY3_P_SHARED_DOWN};

static struct hy3_router router(const struct hy3_layer *l)
{
    return (struct hy3_router){.T = l->tokens.T,
                               .E = l->shape->experts,
                               .k = l->shape->top_k,
                               .scaling = (float)l->shape->router_scaling,
                               .replay = l->replay,
                               .logits = l->acts->logits,
                               .bias = l->params.weight[HY3_P_ROUTER_BIAS],
                               .ids = l->acts->ids,
                               .weights = l->acts->weights};
}

/* Scores in fp32 whatever the dtype, of weights that are fp32 too, then the choice and its
 * weights. */
static hy3_status choose_experts(const struct hy3_layer *l)
{
    const struct hy3_shape *s = l->shape;
    struct hy3_layer_acts *a = l->acts;
    struct hy3_router r = router(l);

    if (l->dtype == HY3_FP32)
        a->n2_wide = a->n2;
    else
        HY3_TRY(l->backend->kernels.cast(l->stream, &(struct hy3_cast){.n = l->tokens.T * s->hidden,
                                                                       .x_dtype = l->dtype,
                                                                       .y_dtype = HY3_FP32,
                                                                       .x = a->n2,
                                                                       .y = a->n2_wide}));
    HY3_TRY(
        l->backend->kernels.gemm(l->stream, &(struct hy3_gemm){.form = HY3_NT,
                                                               .M = l->tokens.T,
                                                               .N = s->experts,
                                                               .K = s->hidden,
                                                               .dtype = HY3_FP32,
                                                               .c_dtype = HY3_FP32,
                                                               .alpha = 1,
                                                               .A = a->n2_wide,
                                                               .B = l->params.weight[HY3_P_ROUTER],
                                                               .C = a->logits}));
    return l->backend->kernels.router_forward(l->stream, &r);
}

hy3_status hy3_route_part_forward(const struct hy3_layer *l)
{
    const struct hy3_backend *b = l->backend;
    const struct hy3_shape *s = l->shape;
    struct hy3_layer_acts *a = l->acts;

    HY3_TRY(hy3_norm_forward(l, HY3_P_POST_NORM, a->mid, a->n2, a->r2));
    HY3_TRY(choose_experts(l));
    HY3_TRY(b->kernels.route_index(l->stream, &(struct hy3_route_index){.T = l->tokens.T,
                                                                        .G = s->experts,
                                                                        .k = s->top_k,
                                                                        .width = 1,
                                                                        .stride = 1,
                                                                        .ids = a->ids,
                                                                        .position = a->position,
                                                                        .token = a->token,
                                                                        .starts = a->starts}));
    if (l->replay)
        return HY3_OK;
    return b->device.copy(l->stream, a->host_starts, a->starts,
                          (size_t)(s->experts + 1) * sizeof *a->starts);
}

hy3_status hy3_shared_part_forward(const struct hy3_layer *l)
{
    return l->shape->shared_experts > 0 ? hy3_mlp_forward(l, &shared, false, l->acts->shared)
                                        : HY3_OK;
}

hy3_status hy3_route_part_backward(const struct hy3_layer *l, void *d)
{
    const struct hy3_kernels *kernels = &l->backend->kernels;
    const struct hy3_shape *s = l->shape;
    const struct hy3_layer_acts *a = l->acts;
    const struct hy3_layer_scratch *w = l->scratch;
    const struct hy3_permute p = {.T = l->tokens.T,
                                  .R = l->returned.R,
                                  .H = s->hidden,
                                  .k = s->top_k,
                                  .dtype = l->dtype,
                                  .position = l->returned.position,
                                  .dy = w->drows,
                                  .dx = w->dn};
    struct hy3_router r = router(l);
    struct hy3_gemm product = {.dtype = HY3_FP32, .c_dtype = HY3_FP32, .alpha = 1};

    HY3_TRY(kernels->permute_backward(l->stream, &p));
    if (s->shared_experts > 0)
        HY3_TRY(hy3_mlp_backward(l, &shared, d, true, w->dn));
    r.R = l->returned.places;
    r.place = l->returned.place;
    r.products = l->returned.products;
    r.dlogits = w->dlogits;
    HY3_TRY(kernels->router_backward(l->stream, &r));
    product.A = w->dlogits;
    if (l->params.grad[HY3_P_ROUTER]) { /* dW += dlogits^T n2 */
        product.form = HY3_TN;
        product.M = s->experts;
        product.N = s->hidden;
        product.K = l->tokens.T;
        product.accumulate = true;
        product.B = a->n2_wide;
        product.C = l->params.grad[HY3_P_ROUTER];
        HY3_TRY(kernels->gemm(l->stream, &product));
    }
    product.form = HY3_NN; /* dn2 += dlogits W */
    product.M = l->tokens.T;
    product.N = s->hidden;
    product.K = s->experts;
    product.B = l->params.weight[HY3_P_ROUTER];
    product.accumulate = false;
    product.C = w->dn_wide;
    HY3_TRY(kernels->gemm(l->stream, &product));
    HY3_TRY(kernels->add(l->stream, &(struct hy3_add){.n = l->tokens.T * s->hidden,
                                                      .x_dtype = HY3_FP32,
                                                      .y_dtype = l->dtype,
                                                      .x = w->dn_wide,
                                                      .y = w->dn}));
    return hy3_norm_backward(l, HY3_P_POST_NORM, a->mid, a->n2, a->r2, w->dn, d);
}

struct hy3_expert_rows hy3_own_expert_rows(const struct hy3_layer *l)
{
    const struct hy3_layer_acts *a = l->acts;
    struct hy3_expert_rows rows = {.groups = l->shape->experts,
                                   .starts = a->host_starts,
                                   .rows = a->rows,
                                   .gate_up = a->held_gate_up,
                                   .act = a->held_act,
                                   .out = a->rows_out};

    if (l->scratch) {
        rows.d = l->scratch->drows;
        rows.dact = l->scratch->held_dact;
        rows.products = l->scratch->products;
    }
    return rows;
}

struct hy3_returned_rows hy3_own_returned_rows(const struct hy3_layer *l)
{
    int64_t R = l->tokens.T * l->shape->top_k;

    return (struct hy3_returned_rows){.R = R,
                                      .places = R,
                                      .position = l->acts->position,
                                      .weights = l->acts->weights,
                                      .place = l->acts->position,
                                      .products = l->scratch ? l->scratch->products : NULL};
}

hy3_status hy3_own_rows_forward(const struct hy3_layer *l)
{
    const struct hy3_permute p = {.T = l->tokens.T,
                                  .R = l->tokens.T * l->shape->top_k,
                                  .H = l->shape->hidden,
                                  .k = l->shape->top_k,
                                  .dtype = l->dtype,
                                  .token = l->acts->token,
                                  .x = l->acts->n2,
                                  .y = l->acts->rows};

    return l->backend->kernels.permute_forward(l->stream, &p);
}

static struct hy3_swiglu expert_swiglu(const struct hy3_layer *l)
{
    const struct hy3_expert_rows *x = l->experts;
    int64_t I = l->shape->expert_intermediate;

    return (struct hy3_swiglu){.N = x->starts[x->groups],
                               .I = I,
                               .ld = 2 * I,
                               .dtype = l->dtype,
                               .gate = x->gate_up,
                               .up = (char *)x->gate_up + (size_t)I * hy3_dtype_size(l->dtype),
                               .y = x->act};
}

hy3_status hy3_experts_part_forward(const struct hy3_layer *l, bool inner)
{
    const struct hy3_expert_rows *x = l->experts;
    struct hy3_swiglu swiglu = expert_swiglu(l);

    HY3_TRY(hy3_linear_forward(l, HY3_P_GATE_UP, x->rows, false, x->gate_up));
    HY3_TRY(l->backend->kernels.swiglu_forward(l->stream, &swiglu));
    if (inner)
        return HY3_OK;
    return hy3_linear_forward(l, HY3_P_EXPERT_DOWN, x->act, false, x->out);
}

/* The gradient of a row's weight is d(out) . y of its token, y = down(act): with d = weight d(out)
 * it is dact . act / weight, so that y is not needed. */
hy3_status hy3_experts_part_backward(const struct hy3_layer *l)
{
    const struct hy3_expert_rows *x = l->experts;
    struct hy3_swiglu swiglu = expert_swiglu(l);
    const struct hy3_row_dot products = {.N = x->starts[x->groups],
                                         .C = l->shape->expert_intermediate,
                                         .dtype = l->dtype,
                                         .a = x->dact,
                                         .b = x->act,
                                         .to = x->to,
                                         .places = x->places,
                                         .y = x->products};

    HY3_TRY(hy3_linear_backward(l, HY3_P_EXPERT_DOWN, x->act, x->d, false, x->dact));
    HY3_TRY(l->backend->kernels.row_dot(l->stream, &products));
    swiglu.dy = x->dact;
    swiglu.dgate = (void *)(uintptr_t)swiglu.gate; /* in place */
    swiglu.dup = (void *)(uintptr_t)swiglu.up;
    HY3_TRY(l->backend->kernels.swiglu_backward(l->stream, &swiglu));
    return hy3_linear_backward(l, HY3_P_GATE_UP, x->rows, x->gate_up, false, x->d);
}

static struct hy3_unpermute unpermute(const struct hy3_layer *l)
{
    return (struct hy3_unpermute){.T = l->tokens.T,
                                  .R = l->returned.R,
                                  .H = l->shape->hidden,
                                  .k = l->shape->top_k,
                                  .dtype = l->dtype,
                                  .position = l->returned.position,
                                  .weights = l->returned.weights};
}

hy3_status hy3_combine_part_forward(const struct hy3_layer *l)
{
    struct hy3_unpermute u = unpermute(l);

    u.y = l->acts->rows_out;
    u.shared = l->acts->shared;
    u.out = l->acts->out;
    u.accumulate = true;
    HY3_TRY(l->backend->device.copy(l->stream, l->acts->out, l->acts->mid, hy3_layer_bytes(l)));
    return l->backend->kernels.unpermute_forward(l->stream, &u);
}

hy3_status hy3_combine_part_backward(const struct hy3_layer *l, const void *d)
{
    struct hy3_unpermute u = unpermute(l);

    u.dout = d;
    u.dy = l->scratch->drows;
    return l->backend->kernels.unpermute_backward(l->stream, &u);
}
