/* SPDX-License-Identifier: Apache-2.0 */
/* attention.c - the attention part of a layer: norm, projections, rotation, attention, output.
 *
 * Formulas: transformers' modeling_hy_v3.py. */
#include "model/layer.h"
#include "model/linear.h"
#include "model/norm.h"

#include <math.h>

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
    const struct hy3_shared_keys *shared = &l->tokens.shared;
    bool is_shared = shared->first != NULL;

    return (struct hy3_attention){.S = l->tokens.S,
                                  .Q = s->heads,
                                  .K = s->kv_heads,
                                  .D = s->head_dim,
                                  .q_starts = l->tokens.starts,
                                  .kv_first = is_shared ? shared->first : l->tokens.starts,
                                  .kv_end = is_shared ? shared->end : l->tokens.starts + 1,
                                  .scale = (float)(1 / sqrt((double)s->head_dim)),
                                  .dtype = l->dtype,
                                  .q = a->q,
                                  .k = is_shared ? shared->k : a->k,
                                  .v = is_shared ? shared->v : a->v,
                                  .o = a->o,
                                  .lse = a->lse,
                                  .accumulate = is_shared};
}

/* Appends the keys and values of the new tokens and attends to all of the sample. */
static hy3_status attend_cached(const struct hy3_layer *l, struct hy3_kv_cache *cache)
{
    const struct hy3_device *device = &l->backend->device;
    size_t row = (size_t)(l->shape->kv_heads * l->shape->head_dim) * hy3_dtype_size(l->dtype);
    size_t at = (size_t)cache->count * row, bytes = (size_t)l->tokens.T * row;
    const int64_t first = 0, end = cache->count + l->tokens.T;
    struct hy3_attention a = attention(l);

    HY3_ASSERT(l->tokens.S == 1);
    HY3_TRY(device->copy(l->stream, (char *)cache->k + at, l->acts->k, bytes));
    HY3_TRY(device->copy(l->stream, (char *)cache->v + at, l->acts->v, bytes));
    a.kv_first = &first;
    a.kv_end = &end;
    a.k = cache->k;
    a.v = cache->v;
    return l->backend->kernels.attention_forward(l->stream, &a);
}

hy3_status hy3_keys_part_forward(const struct hy3_layer *l)
{
    const struct hy3_kernels *kernels = &l->backend->kernels;
    const struct hy3_shape *s = l->shape;
    struct hy3_layer_acts *a = l->acts;
    struct hy3_rope q = rope(l, HY3_P_Q_NORM, s->heads, a->q_raw, a->q, a->r_q);
    struct hy3_rope k = rope(l, HY3_P_K_NORM, s->kv_heads, a->k_raw, a->k, a->r_k);

    HY3_TRY(hy3_norm_forward(l, HY3_P_INPUT_NORM, a->x, a->n1, a->r1));
    HY3_TRY(hy3_linear_forward(l, HY3_P_Q, a->n1, false, a->q_raw));
    HY3_TRY(hy3_linear_forward(l, HY3_P_K, a->n1, false, a->k_raw));
    HY3_TRY(hy3_linear_forward(l, HY3_P_V, a->n1, false, a->v));
    HY3_TRY(kernels->rope_forward(l->stream, &q));
    return kernels->rope_forward(l->stream, &k);
}

hy3_status hy3_attention_part_forward(const struct hy3_layer *l, struct hy3_kv_cache *cache)
{
    struct hy3_layer_acts *a = l->acts;
    struct hy3_attention core = attention(l);

    if (cache)
        HY3_TRY(attend_cached(l, cache));
    else if (!l->replay || !l->keeps_attention)
        HY3_TRY(l->backend->kernels.attention_forward(l->stream, &core));
    HY3_TRY(l->backend->device.copy(l->stream, a->mid, a->x, hy3_layer_bytes(l)));
    return hy3_linear_forward(l, HY3_P_O, a->o, true, a->mid);
}

hy3_status hy3_attention_part_backward(const struct hy3_layer *l, const void *d)
{
    const struct hy3_shared_keys *shared = &l->tokens.shared;
    const struct hy3_layer_scratch *w = l->scratch;
    struct hy3_attention core = attention(l);

    HY3_TRY(hy3_linear_backward(l, HY3_P_O, l->acts->o, d, false, w->dout));
    core.dout = w->dout;
    core.dq = w->dq;
    core.dk = shared->first ? shared->dk : w->dk;
    core.dv = shared->first ? shared->dv : w->dv;
    return l->backend->kernels.attention_backward(l->stream, &core);
}

hy3_status hy3_keys_part_backward(const struct hy3_layer *l, void *d)
{
    const struct hy3_kernels *kernels = &l->backend->kernels;
    const struct hy3_shape *s = l->shape;
    const struct hy3_layer_acts *a = l->acts;
    const struct hy3_layer_scratch *w = l->scratch;
    struct hy3_rope q = rope(l, HY3_P_Q_NORM, s->heads, a->q_raw, a->q, a->r_q);
    struct hy3_rope k = rope(l, HY3_P_K_NORM, s->kv_heads, a->k_raw, a->k, a->r_k);

    q.dy = w->dq;
    q.dx = w->dq_raw;
    HY3_TRY(kernels->rope_backward(l->stream, &q));
    k.dy = w->dk;
    k.dx = w->dk_raw;
    HY3_TRY(kernels->rope_backward(l->stream, &k));
    HY3_TRY(hy3_linear_backward(l, HY3_P_Q, a->n1, w->dq_raw, false, w->dn));
    HY3_TRY(hy3_linear_backward(l, HY3_P_K, a->n1, w->dk_raw, true, w->dn));
    HY3_TRY(hy3_linear_backward(l, HY3_P_V, a->n1, w->dv, true, w->dn));
    return hy3_norm_backward(l, HY3_P_INPUT_NORM, a->x, a->n1, a->r1, w->dn, d);
}
