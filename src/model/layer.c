/* SPDX-License-Identifier: Apache-2.0 */
/* layer.c - attention, dense MLP, router, experts: forward and backward by hand.
 *
 * Formulas: transformers' modeling_hy_v3.py; derivatives worked out per part below. */
#include "model/layer.h"

#include "model/lora.h"

#include <math.h>

/* y (= or +=) x W^T, and what an adapter adds */
static hy3_status linear(const struct hy3_layer *l, const void *x, enum hy3_param_kind kind,
                         int64_t in, int64_t out, bool accumulate, void *y)
{
    HY3_TRY(l->backend->kernels.gemm(l->stream, &(struct hy3_gemm){.form = HY3_NT,
                                                                   .M = l->tokens.T,
                                                                   .N = out,
                                                                   .K = in,
                                                                   .dtype = l->dtype,
                                                                   .c_dtype = l->dtype,
                                                                   .accumulate = accumulate,
                                                                   .alpha = 1,
                                                                   .A = x,
                                                                   .B = l->params.weight[kind],
                                                                   .C = y}));
    return hy3_lora_forward(l, kind, x, y);
}

/* dW += dy^T x unless frozen; dx (= or +=) dy W. */
static hy3_status linear_backward(const struct hy3_layer *l, const void *x, const void *dy,
                                  enum hy3_param_kind kind, int64_t in, int64_t out,
                                  bool accumulate, void *dx)
{
    struct hy3_gemm product = {.M = out, .N = in, .K = l->tokens.T, .dtype = l->dtype, .alpha = 1};

    if (l->params.grad[kind]) {
        product.form = HY3_TN;
        product.c_dtype = HY3_FP32;
        product.accumulate = true;
        product.A = dy;
        product.B = x;
        product.C = l->params.grad[kind];
        HY3_TRY(l->backend->kernels.gemm(l->stream, &product));
    }
    product.form = HY3_NN;
    product.M = l->tokens.T;
    product.K = out;
    product.c_dtype = l->dtype;
    product.accumulate = accumulate;
    product.A = dy;
    product.B = l->params.weight[kind];
    product.C = dx;
    HY3_TRY(l->backend->kernels.gemm(l->stream, &product));
    return hy3_lora_backward(l, kind, x, dy, dx);
}

static size_t hidden_bytes(const struct hy3_layer *l)
{
    return (size_t)(l->tokens.T * l->shape->hidden) * hy3_dtype_size(l->dtype);
}

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

static struct hy3_rope rope(const struct hy3_layer *l, enum hy3_param_kind kind, int64_t heads,
                            const void *x, void *y, float *r)
{
    return (struct hy3_rope){.T = l->tokens.T,
                             .heads = heads,
                             .D = l->shape->head_dim,
                             .eps = (float)l->shape->rms_eps,
                             .theta = l->shape->rope_theta,
                             .dtype = l->dtype,
                             .positions = l->tokens.positions,
                             .x = x,
                             .w = l->params.weight[kind],
                             .y = y,
                             .r = r,
                             .dw = l->params.grad[kind]};
}

static struct hy3_attention attention(const struct hy3_layer *l)
{
    const struct hy3_shape *s = l->shape;
    const struct hy3_layer_acts *a = l->acts;

    return (struct hy3_attention){.S = l->tokens.S,
                                  .Q = s->heads,
                                  .K = s->kv_heads,
                                  .D = s->head_dim,
                                  .q_starts = l->tokens.starts,
                                  .kv_starts = l->tokens.starts,
                                  .scale = (float)(1 / sqrt((double)s->head_dim)),
                                  .dtype = l->dtype,
                                  .q = a->q,
                                  .k = a->k,
                                  .v = a->v,
                                  .o = a->o,
                                  .lse = a->lse};
}

/* Appends the keys and values of the new tokens and attends to all of the sample. */
static hy3_status attend_cached(const struct hy3_layer *l, struct hy3_kv_cache *cache)
{
    const struct hy3_device *device = &l->backend->device;
    size_t row = (size_t)(l->shape->kv_heads * l->shape->head_dim) * hy3_dtype_size(l->dtype);
    size_t at = (size_t)cache->count * row, bytes = (size_t)l->tokens.T * row;
    int64_t kv_starts[2] = {0, cache->count + l->tokens.T};
    struct hy3_attention a = attention(l);

    HY3_ASSERT(l->tokens.S == 1);
    HY3_TRY(device->copy(l->stream, (char *)cache->k + at, l->acts->k, bytes));
    HY3_TRY(device->copy(l->stream, (char *)cache->v + at, l->acts->v, bytes));
    a.kv_starts = kv_starts;
    a.k = cache->k;
    a.v = cache->v;
    return l->backend->kernels.attention_forward(l->stream, &a);
}

hy3_status hy3_attention_part_forward(const struct hy3_layer *l, struct hy3_kv_cache *cache)
{
    const struct hy3_kernels *kernels = &l->backend->kernels;
    const struct hy3_shape *s = l->shape;
    struct hy3_layer_acts *a = l->acts;
    int64_t H = s->hidden, q_width = s->heads * s->head_dim, k_width = s->kv_heads * s->head_dim;
    struct hy3_rmsnorm n = norm(l, HY3_P_INPUT_NORM, a->x, a->n1, a->r1);
    struct hy3_rope q = rope(l, HY3_P_Q_NORM, s->heads, a->q_raw, a->q, a->r_q);
    struct hy3_rope k = rope(l, HY3_P_K_NORM, s->kv_heads, a->k_raw, a->k, a->r_k);
    struct hy3_attention core = attention(l);

    HY3_TRY(kernels->rmsnorm_forward(l->stream, &n));
    HY3_TRY(linear(l, a->n1, HY3_P_Q, H, q_width, false, a->q_raw));
    HY3_TRY(linear(l, a->n1, HY3_P_K, H, k_width, false, a->k_raw));
    HY3_TRY(linear(l, a->n1, HY3_P_V, H, k_width, false, a->v));
    HY3_TRY(kernels->rope_forward(l->stream, &q));
    HY3_TRY(kernels->rope_forward(l->stream, &k));
    if (cache)
        HY3_TRY(attend_cached(l, cache));
    else
        HY3_TRY(kernels->attention_forward(l->stream, &core));
    HY3_TRY(l->backend->device.copy(l->stream, a->mid, a->x, hidden_bytes(l)));
    return linear(l, a->o, HY3_P_O, q_width, H, true, a->mid);
}

hy3_status hy3_attention_part_backward(const struct hy3_layer *l, void *d)
{
    const struct hy3_kernels *kernels = &l->backend->kernels;
    const struct hy3_shape *s = l->shape;
    const struct hy3_layer_acts *a = l->acts;
    const struct hy3_layer_scratch *w = l->scratch;
    int64_t H = s->hidden, q_width = s->heads * s->head_dim, k_width = s->kv_heads * s->head_dim;
    struct hy3_attention core = attention(l);
    struct hy3_rope q = rope(l, HY3_P_Q_NORM, s->heads, a->q_raw, a->q, a->r_q);
    struct hy3_rope k = rope(l, HY3_P_K_NORM, s->kv_heads, a->k_raw, a->k, a->r_k);
    struct hy3_rmsnorm n = norm(l, HY3_P_INPUT_NORM, a->x, a->n1, a->r1);

    HY3_TRY(linear_backward(l, a->o, d, HY3_P_O, q_width, H, false, w->dout));
    core.dout = w->dout;
    core.dq = w->dq;
    core.dk = w->dk;
    core.dv = w->dv;
    HY3_TRY(kernels->attention_backward(l->stream, &core));
    q.dy = w->dq;
    q.dx = w->dq_raw;
    HY3_TRY(kernels->rope_backward(l->stream, &q));
    k.dy = w->dk;
    k.dx = w->dk_raw;
    HY3_TRY(kernels->rope_backward(l->stream, &k));
    HY3_TRY(linear_backward(l, a->n1, w->dq_raw, HY3_P_Q, H, q_width, false, w->dn));
    HY3_TRY(linear_backward(l, a->n1, w->dk_raw, HY3_P_K, H, k_width, true, w->dn));
    HY3_TRY(linear_backward(l, a->n1, w->dv, HY3_P_V, H, k_width, true, w->dn));
    n.dy = w->dn;
    n.dx = d;
    return kernels->rmsnorm_backward(l->stream, &n);
}

/* The kinds of a gated MLP: the dense layer's or the shared expert's. */
struct mlp {
    enum hy3_param_kind gate, up, down;
    int64_t I;
};

static struct mlp dense_mlp(const struct hy3_layer *l)
{
    return (struct mlp){HY3_P_GATE, HY3_P_UP, HY3_P_DOWN, l->shape->intermediate};
}

static struct mlp shared_mlp(const struct hy3_layer *l)
{
    return (struct mlp){HY3_P_SHARED_GATE, HY3_P_SHARED_UP, HY3_P_SHARED_DOWN,
                        l->shape->shared_experts * l->shape->expert_intermediate};
}

static struct hy3_swiglu mlp_swiglu(const struct hy3_layer *l, int64_t I)
{
    return (struct hy3_swiglu){.N = l->tokens.T,
                               .I = I,
                               .ld = I,
                               .dtype = l->dtype,
                               .gate = l->acts->gate,
                               .up = l->acts->up,
                               .y = l->acts->act};
}

/* y (= or +=) down(silu(gate n2) * up n2). Recomputation ends before the last product: no backward
 * reads y. */
static hy3_status mlp_forward(const struct hy3_layer *l, struct mlp m, bool accumulate, void *y)
{
    struct hy3_layer_acts *a = l->acts;
    struct hy3_swiglu swiglu = mlp_swiglu(l, m.I);

    HY3_TRY(linear(l, a->n2, m.gate, l->shape->hidden, m.I, false, a->gate));
    HY3_TRY(linear(l, a->n2, m.up, l->shape->hidden, m.I, false, a->up));
    HY3_TRY(l->backend->kernels.swiglu_forward(l->stream, &swiglu));
    if (!l->replay)
        HY3_TRY(linear(l, a->act, m.down, m.I, l->shape->hidden, accumulate, y));
    return HY3_OK;
}

/* From dy: d(n2) = or += into dn. Overwrites gate and up with their gradients. */
static hy3_status mlp_backward(const struct hy3_layer *l, struct mlp m, const void *dy,
                               bool accumulate, void *dn)
{
    struct hy3_layer_acts *a = l->acts;
    int64_t H = l->shape->hidden;
    struct hy3_swiglu swiglu = mlp_swiglu(l, m.I);

    HY3_TRY(linear_backward(l, a->act, dy, m.down, m.I, H, false, l->scratch->dact));
    swiglu.dy = l->scratch->dact;
    swiglu.dgate = a->gate;
    swiglu.dup = a->up;
    HY3_TRY(l->backend->kernels.swiglu_backward(l->stream, &swiglu));
    HY3_TRY(linear_backward(l, a->n2, a->gate, m.gate, H, m.I, accumulate, dn));
    return linear_backward(l, a->n2, a->up, m.up, H, m.I, true, dn);
}

hy3_status hy3_dense_part_forward(const struct hy3_layer *l)
{
    struct hy3_layer_acts *a = l->acts;
    struct hy3_rmsnorm n = norm(l, HY3_P_POST_NORM, a->mid, a->n2, a->r2);

    HY3_TRY(l->backend->kernels.rmsnorm_forward(l->stream, &n));
    if (!l->replay)
        HY3_TRY(l->backend->device.copy(l->stream, a->out, a->mid, hidden_bytes(l)));
    return mlp_forward(l, dense_mlp(l), true, a->out);
}

/* d(mid) += through the norm, from d(n2) in scratch->dn. */
static hy3_status post_norm_backward(const struct hy3_layer *l, void *d)
{
    const struct hy3_layer_acts *a = l->acts;
    struct hy3_rmsnorm n = norm(l, HY3_P_POST_NORM, a->mid, a->n2, a->r2);

    n.dy = l->scratch->dn;
    n.dx = d;
    return l->backend->kernels.rmsnorm_backward(l->stream, &n);
}

hy3_status hy3_dense_part_backward(const struct hy3_layer *l, void *d)
{
    HY3_TRY(mlp_backward(l, dense_mlp(l), d, false, l->scratch->dn));
    return post_norm_backward(l, d);
}

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

static hy3_status widen(const struct hy3_layer *l, const void *from, int64_t n, float *to)
{
    if (from == to) /* fp32 already */
        return HY3_OK;
    return l->backend->kernels.cast(
        l->stream,
        &(struct hy3_cast){.n = n, .x_dtype = l->dtype, .y_dtype = HY3_FP32, .x = from, .y = to});
}

/* Scores in fp32 whatever the dtype, then the choice and its weights. */
static hy3_status choose_experts(const struct hy3_layer *l)
{
    const struct hy3_shape *s = l->shape;
    struct hy3_layer_acts *a = l->acts;
    struct hy3_router r = router(l);

    if (l->dtype == HY3_FP32) {
        a->n2_wide = a->n2;
        /* read only: the gradient goes through params.grad */
        a->router_wide = (float *)(uintptr_t)l->params.weight[HY3_P_ROUTER];
    }
    HY3_TRY(widen(l, a->n2, l->tokens.T * s->hidden, a->n2_wide));
    HY3_TRY(widen(l, l->params.weight[HY3_P_ROUTER], s->experts * s->hidden, a->router_wide));
    HY3_TRY(l->backend->kernels.gemm(l->stream, &(struct hy3_gemm){.form = HY3_NT,
                                                                   .M = l->tokens.T,
                                                                   .N = s->experts,
                                                                   .K = s->hidden,
                                                                   .dtype = HY3_FP32,
                                                                   .c_dtype = HY3_FP32,
                                                                   .alpha = 1,
                                                                   .A = a->n2_wide,
                                                                   .B = a->router_wide,
                                                                   .C = a->logits}));
    return l->backend->kernels.router_forward(l->stream, &r);
}

static struct hy3_permute permute(const struct hy3_layer *l)
{
    return (struct hy3_permute){.T = l->tokens.T,
                                .R = l->tokens.T * l->shape->top_k,
                                .H = l->shape->hidden,
                                .k = l->shape->top_k,
                                .dtype = l->dtype,
                                .token = l->acts->token,
                                .position = l->acts->position,
                                .x = l->acts->n2,
                                .y = l->acts->rows};
}

hy3_status hy3_route_part_forward(const struct hy3_layer *l)
{
    const struct hy3_backend *b = l->backend;
    const struct hy3_shape *s = l->shape;
    struct hy3_layer_acts *a = l->acts;
    struct hy3_rmsnorm n = norm(l, HY3_P_POST_NORM, a->mid, a->n2, a->r2);
    struct hy3_permute p = permute(l);

    HY3_TRY(b->kernels.rmsnorm_forward(l->stream, &n));
    HY3_TRY(choose_experts(l));
    HY3_TRY(b->kernels.route_index(l->stream, &(struct hy3_route_index){.T = l->tokens.T,
                                                                        .E = s->experts,
                                                                        .k = s->top_k,
                                                                        .ids = a->ids,
                                                                        .position = a->position,
                                                                        .token = a->token,
                                                                        .starts = a->starts}));
    if (!l->replay) {
        HY3_TRY(b->device.copy(l->stream, a->host_starts, a->starts,
                               (size_t)(s->experts + 1) * sizeof *a->starts));
        HY3_TRY(b->device.synchronize(l->stream));
    }
    HY3_TRY(b->kernels.permute_forward(l->stream, &p));
    if (s->shared_experts > 0)
        HY3_TRY(mlp_forward(l, shared_mlp(l), false, a->shared));
    return HY3_OK;
}

hy3_status hy3_route_part_backward(const struct hy3_layer *l, void *d)
{
    const struct hy3_kernels *kernels = &l->backend->kernels;
    const struct hy3_shape *s = l->shape;
    const struct hy3_layer_acts *a = l->acts;
    const struct hy3_layer_scratch *w = l->scratch;
    struct hy3_permute p = permute(l);
    struct hy3_router r = router(l);
    struct hy3_gemm product = {.dtype = HY3_FP32, .c_dtype = HY3_FP32, .alpha = 1};

    p.dy = w->drows;
    p.dx = w->dn;
    HY3_TRY(kernels->permute_backward(l->stream, &p));
    if (s->shared_experts > 0)
        HY3_TRY(mlp_backward(l, shared_mlp(l), d, true, w->dn));
    r.dweights = w->dweights;
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
    product.B = a->router_wide;
    product.accumulate = false;
    product.C = w->dn_wide;
    HY3_TRY(kernels->gemm(l->stream, &product));
    HY3_TRY(kernels->add(l->stream, &(struct hy3_add){.n = l->tokens.T * s->hidden,
                                                      .x_dtype = HY3_FP32,
                                                      .y_dtype = l->dtype,
                                                      .x = w->dn_wide,
                                                      .y = w->dn}));
    return post_norm_backward(l, d);
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
    }
    return rows;
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

static struct hy3_grouped_gemm grouped(const struct hy3_layer *l)
{
    return (struct hy3_grouped_gemm){.groups = l->experts->groups,
                                     .starts = l->experts->starts,
                                     .dtype = l->dtype,
                                     .c_dtype = l->dtype,
                                     .alpha = 1};
}

hy3_status hy3_experts_part_forward(const struct hy3_layer *l, bool inner)
{
    const struct hy3_kernels *kernels = &l->backend->kernels;
    const struct hy3_expert_rows *x = l->experts;
    int64_t H = l->shape->hidden, I = l->shape->expert_intermediate;
    struct hy3_grouped_gemm product = grouped(l);
    struct hy3_swiglu swiglu = expert_swiglu(l);

    product.form = HY3_NT;
    product.N = 2 * I;
    product.K = H;
    product.A = x->rows;
    product.B = l->params.weight[HY3_P_GATE_UP];
    product.C = x->gate_up;
    HY3_TRY(kernels->grouped_gemm(l->stream, &product));
    HY3_TRY(hy3_lora_forward(l, HY3_P_GATE_UP, x->rows, x->gate_up));
    HY3_TRY(kernels->swiglu_forward(l->stream, &swiglu));
    if (inner)
        return HY3_OK;
    product.N = H;
    product.K = I;
    product.A = x->act;
    product.B = l->params.weight[HY3_P_EXPERT_DOWN];
    product.C = x->out;
    HY3_TRY(kernels->grouped_gemm(l->stream, &product));
    return hy3_lora_forward(l, HY3_P_EXPERT_DOWN, x->act, x->out);
}

/* dW[e] += dy[rows of e]^T x[rows of e] unless frozen; dx = dy W[e]. */
static hy3_status grouped_backward(const struct hy3_layer *l, const void *x, const void *dy,
                                   enum hy3_param_kind kind, int64_t in, int64_t out, void *dx)
{
    struct hy3_grouped_gemm product = grouped(l);

    product.A = dy;
    if (l->params.grad[kind]) {
        product.form = HY3_TN;
        product.M = out;
        product.N = in;
        product.c_dtype = HY3_FP32;
        product.accumulate = true;
        product.B = x;
        product.C = l->params.grad[kind];
        HY3_TRY(l->backend->kernels.grouped_gemm(l->stream, &product));
    }
    product.form = HY3_NN;
    product.N = in;
    product.K = out;
    product.c_dtype = l->dtype;
    product.accumulate = false;
    product.B = l->params.weight[kind];
    product.C = dx;
    HY3_TRY(l->backend->kernels.grouped_gemm(l->stream, &product));
    return hy3_lora_backward(l, kind, x, dy, dx);
}

hy3_status hy3_experts_part_backward(const struct hy3_layer *l)
{
    const struct hy3_expert_rows *x = l->experts;
    int64_t H = l->shape->hidden, I = l->shape->expert_intermediate;
    struct hy3_swiglu swiglu = expert_swiglu(l);

    HY3_TRY(grouped_backward(l, x->act, x->d, HY3_P_EXPERT_DOWN, I, H, x->dact));
    swiglu.dy = x->dact;
    swiglu.dgate = (void *)(uintptr_t)swiglu.gate; /* in place */
    swiglu.dup = (void *)(uintptr_t)swiglu.up;
    HY3_TRY(l->backend->kernels.swiglu_backward(l->stream, &swiglu));
    return grouped_backward(l, x->rows, x->gate_up, HY3_P_GATE_UP, H, 2 * I, x->d);
}

static struct hy3_unpermute unpermute(const struct hy3_layer *l)
{
    const struct hy3_layer_acts *a = l->acts;

    return (struct hy3_unpermute){.T = l->tokens.T,
                                  .R = l->tokens.T * l->shape->top_k,
                                  .H = l->shape->hidden,
                                  .k = l->shape->top_k,
                                  .dtype = l->dtype,
                                  .position = a->position,
                                  .weights = a->weights,
                                  .y = a->rows_out,
                                  .shared = a->shared,
                                  .out = a->out};
}

hy3_status hy3_combine_part_forward(const struct hy3_layer *l)
{
    struct hy3_unpermute u = unpermute(l);

    HY3_TRY(l->backend->device.copy(l->stream, l->acts->out, l->acts->mid, hidden_bytes(l)));
    return l->backend->kernels.unpermute_forward(l->stream, &u);
}

hy3_status hy3_combine_part_backward(const struct hy3_layer *l, const void *d)
{
    struct hy3_unpermute u = unpermute(l);

    u.dout = d;
    u.dy = l->scratch->drows;
    u.dweights = l->scratch->dweights;
    return l->backend->kernels.unpermute_backward(l->stream, &u);
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

void hy3_layer_acts_take(const struct hy3_shape *s, int index, const struct hy3_layer_size *of,
                         struct hy3_arena *arena, struct hy3_layer_acts *a)
{
    size_t size = hy3_dtype_size(of->dtype);
    bool moe = hy3_shape_is_moe(s, index);
    int64_t H = s->hidden, q_width = s->heads * s->head_dim, k_width = s->kv_heads * s->head_dim;
    int64_t T = of->T, R = T * s->top_k, I = s->expert_intermediate, C = of->C > 0 ? of->C : R;
    int64_t mlp = moe ? s->shared_experts * I : s->intermediate;

    a->mid = hy3_arena_take(arena, T * H, size);
    a->n1 = hy3_arena_take(arena, T * H, size);
    a->q_raw = hy3_arena_take(arena, T * q_width, size);
    a->k_raw = hy3_arena_take(arena, T * k_width, size);
    a->v = hy3_arena_take(arena, T * k_width, size);
    a->q = hy3_arena_take(arena, T * q_width, size);
    a->k = hy3_arena_take(arena, T * k_width, size);
    a->o = hy3_arena_take(arena, T * q_width, size);
    a->r1 = hy3_arena_take(arena, T, sizeof(float));
    a->r_q = hy3_arena_take(arena, T * s->heads, sizeof(float));
    a->r_k = hy3_arena_take(arena, T * s->kv_heads, sizeof(float));
    a->lse = hy3_arena_take(arena, T * s->heads, sizeof(float));
    a->n2 = hy3_arena_take(arena, T * H, size);
    a->r2 = hy3_arena_take(arena, T, sizeof(float));
    a->gate = hy3_arena_take(arena, T * mlp, size);
    a->up = hy3_arena_take(arena, T * mlp, size);
    a->act = hy3_arena_take(arena, T * mlp, size);
    if (!moe)
        return;
    a->shared = s->shared_experts > 0 ? hy3_arena_take(arena, T * H, size) : NULL;
    if (of->dtype != HY3_FP32) {
        a->n2_wide = hy3_arena_take(arena, T * H, sizeof(float));
        a->router_wide = hy3_arena_take(arena, s->experts * H, sizeof(float));
    }
    a->logits = hy3_arena_take(arena, T * s->experts, sizeof(float));
    a->weights = hy3_arena_take(arena, R, sizeof(float));
    a->position = hy3_arena_take(arena, R, sizeof(int32_t));
    a->token = hy3_arena_take(arena, R, sizeof(int32_t));
    a->starts = hy3_arena_take(arena, s->experts + 1, sizeof(int64_t));
    a->rows = hy3_arena_take(arena, R * H, size);
    a->rows_out = hy3_arena_take(arena, R * H, size);
    a->held_rows = of->C > 0 ? hy3_arena_take(arena, C * H, size) : a->rows;
    a->held_gate_up = hy3_arena_take(arena, C * 2 * I, size);
    a->held_act = hy3_arena_take(arena, C * I, size);
}

void hy3_layer_scratch_take(const struct hy3_shape *s, const struct hy3_layer_size *of,
                            struct hy3_arena *arena, struct hy3_layer_scratch *w)
{
    size_t size = hy3_dtype_size(of->dtype);
    int64_t H = s->hidden, q_width = s->heads * s->head_dim, k_width = s->kv_heads * s->head_dim;
    int64_t T = of->T, R = T * s->top_k, I = s->expert_intermediate, C = of->C > 0 ? of->C : R;
    bool dense = s->dense_layers > 0 || s->experts == 0;

    w->dn = hy3_arena_take(arena, T * H, size);
    w->dq = hy3_arena_take(arena, T * q_width, size);
    w->dk = hy3_arena_take(arena, T * k_width, size);
    w->dv = hy3_arena_take(arena, T * k_width, size);
    w->dq_raw = hy3_arena_take(arena, T * q_width, size);
    w->dk_raw = hy3_arena_take(arena, T * k_width, size);
    w->dout = hy3_arena_take(arena, T * q_width, size);
    w->dact =
        hy3_arena_take(arena, T * larger(dense ? s->intermediate : 0, s->shared_experts * I), size);
    if (s->experts == 0)
        return;
    w->dweights = hy3_arena_take(arena, R, sizeof(float));
    w->dlogits = hy3_arena_take(arena, T * s->experts, sizeof(float));
    w->dn_wide = hy3_arena_take(arena, T * H, sizeof(float));
    w->drows = hy3_arena_take(arena, R * H, size);
    w->held_dact = hy3_arena_take(arena, C * I, size);
}
