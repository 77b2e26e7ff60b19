/* SPDX-License-Identifier: Apache-2.0 */
/* acts.c - what lies where, from the shape of the model. */
#include "model/acts.h"

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

void hy3_acts_take(const struct hy3_shape *s, int index, const struct hy3_layer_size *of,
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
    if (!of->keeps_attention)
        a->o = hy3_arena_take(arena, T * q_width, size);
    a->r1 = hy3_arena_take(arena, T, sizeof(float));
    a->r_q = hy3_arena_take(arena, T * s->heads, sizeof(float));
    a->r_k = hy3_arena_take(arena, T * s->kv_heads, sizeof(float));
    if (!of->keeps_attention)
        a->lse = hy3_arena_take(arena, T * s->heads, sizeof(float));
    a->n2 = hy3_arena_take(arena, T * H, size);
    a->r2 = hy3_arena_take(arena, T, sizeof(float));
    a->gate = hy3_arena_take(arena, T * mlp, size);
    a->up = hy3_arena_take(arena, T * mlp, size);
    a->act = hy3_arena_take(arena, T * mlp, size);
    if (!moe)
        return;
    a->shared = s->shared_experts > 0 ? hy3_arena_take(arena, T * H, size) : NULL;
    if (of->dtype != HY3_FP32)
        a->n2_wide = hy3_arena_take(arena, T * H, sizeof(float));
    a->logits = hy3_arena_take(arena, T * s->experts, sizeof(float));
    a->weights = hy3_arena_take(arena, R, sizeof(float));
    a->position = hy3_arena_take(arena, R, sizeof(int32_t));
    a->token = hy3_arena_take(arena, R, sizeof(int32_t));
    a->starts = hy3_arena_take(arena, s->experts + 1, sizeof(int64_t));
    a->rows = hy3_arena_take(arena, R * H, size);
    a->held_rows = of->C > 0 ? hy3_arena_take(arena, C * H, size) : a->rows;
    a->held_gate_up = hy3_arena_take(arena, C * 2 * I, size);
    a->held_act = hy3_arena_take(arena, C * I, size);
}

void hy3_rows_out_take(const struct hy3_shape *s, int index, const struct hy3_layer_size *of,
                       struct hy3_arena *arena, struct hy3_layer_acts *a)
{
    if (hy3_shape_is_moe(s, index))
        a->rows_out =
            hy3_arena_take(arena, of->T * s->top_k * s->hidden, hy3_dtype_size(of->dtype));
}

void hy3_scratch_take(const struct hy3_shape *s, const struct hy3_layer_size *of,
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
    w->products = of->C > 0 ? NULL : hy3_arena_take(arena, R, sizeof(float));
    w->dlogits = hy3_arena_take(arena, T * s->experts, sizeof(float));
    w->dn_wide = hy3_arena_take(arena, T * H, sizeof(float));
    w->drows = hy3_arena_take(arena, R * H, size);
    w->held_dact = hy3_arena_take(arena, C * I, size);
}
