/* SPDX-License-Identifier: Apache-2.0 */
/* lora.c - three products forward, five backward; plain for a matrix, grouped for the experts. */
#include "model/lora.h"

#include "model/product.h"

/* The names in the table, each once, then "and all". */
static void list_targets(char *out, size_t size)
{
    size_t used = 0;

    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT && used < size; kind++) {
        const char *target = hy3_kinds[kind].target;

        for (int i = 0; target && i < kind; i++)
            if (hy3_kinds[i].target && strcmp(hy3_kinds[i].target, target) == 0)
                target = NULL;
        if (target)
            used += (size_t)snprintf(out + used, size - used, "%s%s", used ? ", " : "", target);
    }
    if (used < size)
        snprintf(out + used, size - used, " and all");
}

hy3_status hy3_lora_target(const char *name, struct hy3_lora *lora)
{
    bool all = strcmp(name, "all") == 0, found = false;
    char names[256];

    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT; kind++) {
        const char *target = hy3_kinds[kind].target;

        if (target && (all || strcmp(name, target) == 0))
            found = lora->targets[kind] = true;
    }
    if (found)
        return HY3_OK;
    list_targets(names, sizeof names);
    HY3_FAIL(HY3_EUSAGE, "lora_target: there is no '%s'; the names are %s", name, names);
}

const char *hy3_lora_saved_name(enum hy3_param_kind kind)
{
    return kind == HY3_P_EMBED ? "embed_tokens" : kind == HY3_P_HEAD ? "lm_head" : "";
}

int hy3_lora_saved_kind(const char *name)
{
    const char *last = strrchr(name, '.');

    last = last ? last + 1 : name;
    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT && *last; kind++)
        if (strcmp(hy3_lora_saved_name(kind), last) == 0)
            return kind;
    return -1;
}

hy3_status hy3_lora_save(const char *name, struct hy3_lora *lora)
{
    int kind = hy3_lora_saved_kind(name);

    if (kind < 0)
        HY3_FAIL(HY3_EUSAGE,
                 "additional_target: '%s' cannot be trained whole beside an adapter; the names are "
                 "embed_tokens and lm_head (of others: lora_target, or finetuning_type full)",
                 name);
    lora->saved[kind] = true;
    return HY3_OK;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

void hy3_lora_buffers_take(const struct hy3_shape *shape, const struct hy3_lora *lora,
                           const struct hy3_layer_size *of, bool backward, struct hy3_arena *arena,
                           struct hy3_lora_buffers *b)
{
    size_t size = hy3_dtype_size(of->dtype);
    int64_t T = of->T, rows = T, widest = 0, out, in;

    *b = (struct hy3_lora_buffers){0};
    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT; kind++) {
        if (!lora->targets[kind] || !hy3_kind_matrix(shape, kind, &out, &in))
            continue;
        if (hy3_kind_is_expert(kind))
            rows = larger(rows, of->C > 0 ? of->C : T * shape->top_k);
        else
            widest = larger(widest, in);
    }
    b->t = hy3_arena_take(arena, rows * lora->rank, size);
    if (!backward)
        return;
    b->dt = hy3_arena_take(arena, rows * lora->rank, size);
    if (lora->dropout > 0)
        b->dropped = hy3_arena_take(arena, T * widest, size);
}

static bool has_dropout(const struct hy3_layer *l, enum hy3_param_kind kind)
{
    return l->dropout_keys && !hy3_kind_is_expert(kind);
}

/* y = dropout(x), the same mask for the same token and matrix every time. */
static hy3_status drop(const struct hy3_layer *l, enum hy3_param_kind kind, int64_t in,
                       const void *x, void *y)
{
    return l->backend->kernels.dropout(
        l->stream, &(struct hy3_dropout){.N = l->tokens.T,
                                         .C = in,
                                         .p = (float)l->lora->dropout,
                                         .seed = l->seed,
                                         .stream_id = hy3_kind_place(l->index, kind),
                                         .keys = l->dropout_keys,
                                         .dtype = l->dtype,
                                         .x = x,
                                         .y = y});
}

/* t = A dropout(x); *input: dropout(x). */
static hy3_status reduce_rank(const struct hy3_layer *l, enum hy3_param_kind kind, int64_t in,
                              const void *x, const void **input)
{
    const struct hy3_lora_buffers *b = l->lora_buffers;

    *input = x;
    if (has_dropout(l, kind)) {
        HY3_TRY(drop(l, kind, in, x, b->dropped));
        *input = b->dropped;
    }
    return hy3_product_run(l, kind,
                           &(struct hy3_product){.form = HY3_NT,
                                                 .N = l->lora->rank,
                                                 .K = in,
                                                 .alpha = 1,
                                                 .c_dtype = l->dtype,
                                                 .A = *input,
                                                 .B = l->params.factor[HY3_LORA_A][kind],
                                                 .C = b->t});
}

hy3_status hy3_lora_forward(const struct hy3_layer *l, enum hy3_param_kind kind, const void *x,
                            void *y)
{
    int64_t out, in;
    const void *input;

    if (!l->params.factor[HY3_LORA_A][kind])
        return HY3_OK;
    hy3_kind_matrix(l->shape, kind, &out, &in);
    HY3_TRY(reduce_rank(l, kind, in, x, &input));
    return hy3_product_run(l, kind,
                           &(struct hy3_product){.form = HY3_NT,
                                                 .N = out,
                                                 .K = l->lora->rank,
                                                 .alpha = hy3_lora_scale(l->lora),
                                                 .accumulate = true,
                                                 .c_dtype = l->dtype,
                                                 .A = l->lora_buffers->t,
                                                 .B = l->params.factor[HY3_LORA_B][kind],
                                                 .C = y});
}

/* dB += scale dy^T t, dA += dt^T dropout(x) */
static hy3_status factor_gradients(const struct hy3_layer *l, enum hy3_param_kind kind, int64_t out,
                                   int64_t in, const void *input, const void *dy)
{
    struct hy3_product p = {.form = HY3_TN, .accumulate = true, .c_dtype = HY3_FP32};

    p.M = out;
    p.N = l->lora->rank;
    p.alpha = hy3_lora_scale(l->lora);
    p.A = dy;
    p.B = l->lora_buffers->t;
    p.C = l->params.factor_grad[HY3_LORA_B][kind];
    HY3_TRY(hy3_product_run(l, kind, &p));
    p.M = l->lora->rank;
    p.N = in;
    p.alpha = 1;
    p.A = l->lora_buffers->dt;
    p.B = input;
    p.C = l->params.factor_grad[HY3_LORA_A][kind];
    return hy3_product_run(l, kind, &p);
}

/* dx += dropout'(A^T dt) */
static hy3_status input_gradient(const struct hy3_layer *l, enum hy3_param_kind kind, int64_t in,
                                 void *dx)
{
    bool dropped = has_dropout(l, kind);
    void *to = dropped ? l->lora_buffers->dropped : dx;

    HY3_TRY(hy3_product_run(l, kind,
                            &(struct hy3_product){.form = HY3_NN,
                                                  .N = in,
                                                  .K = l->lora->rank,
                                                  .alpha = 1,
                                                  .accumulate = !dropped,
                                                  .c_dtype = l->dtype,
                                                  .A = l->lora_buffers->dt,
                                                  .B = l->params.factor[HY3_LORA_A][kind],
                                                  .C = to}));
    if (!dropped)
        return HY3_OK;
    HY3_TRY(drop(l, kind, in, to, to));
    return l->backend->kernels.add(
        l->stream,
        &(struct hy3_add){
            .n = l->tokens.T * in, .x_dtype = l->dtype, .y_dtype = l->dtype, .x = to, .y = dx});
}

hy3_status hy3_lora_backward(const struct hy3_layer *l, enum hy3_param_kind kind, const void *x,
                             const void *dy, void *dx)
{
    int64_t out, in;
    const void *input;

    if (!l->params.factor[HY3_LORA_A][kind])
        return HY3_OK;
    hy3_kind_matrix(l->shape, kind, &out, &in);
    HY3_TRY(reduce_rank(l, kind, in, x, &input));
    HY3_TRY(hy3_product_run(l, kind,
                            &(struct hy3_product){.form = HY3_NN, /* dt = scale dy B */
                                                  .N = l->lora->rank,
                                                  .K = out,
                                                  .alpha = hy3_lora_scale(l->lora),
                                                  .c_dtype = l->dtype,
                                                  .A = dy,
                                                  .B = l->params.factor[HY3_LORA_B][kind],
                                                  .C = l->lora_buffers->dt}));
    HY3_TRY(factor_gradients(l, kind, out, in, input, dy));
    return input_gradient(l, kind, in, dx);
}
