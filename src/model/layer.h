/* SPDX-License-Identifier: Apache-2.0 */
/* layer.h - forward and backward of one decoder layer, on buffers that are given: the contract of
 * attention.c, mlp.c and moe.c.
 *
 * A layer is a chain of parts, which the engine calls in order (engine/chain.h); between them it
 * gathers weights and exchanges tokens with the experts:
 *     keys -> attention -> dense MLP
 *     keys -> attention -> route -> experts -> combine
 * Each part's forward fills the activations its backward reads. The residual runs x -> mid
 * -> out; backward parts take its gradient `d` and change it in place, from d(out) to d(x). Nothing
 * here depends on ranks, units or files. */
#pragma once

#include "backend/backend.h"
#include "model/acts.h"
#include "model/params.h"

/* Weights and gradients of one layer, by kind; what the layer does not have is NULL. Device
 * memory. */
struct hy3_layer_params {
    const void *weight[HY3_PARAM_KIND_COUNT];
    float *grad[HY3_PARAM_KIND_COUNT];                         /* NULL: frozen */
    const void *factor[HY3_PARAM_PARTS][HY3_PARAM_KIND_COUNT]; /* of the adapter; HY3_BASE unused */
    float *factor_grad[HY3_PARAM_PARTS][HY3_PARAM_KIND_COUNT];
};

/* Memory for an adapter's products, see lora.h. Rows are tokens, or routed rows where experts have
 * an adapter. */
struct hy3_lora_buffers {
    void *t, *dt;  /* [rows,rank] */
    void *dropped; /* [T,in] the widest input */
};

/* Keys and values that are not those of the layer's own tokens alone: of all ranks that share a
 * micro-batch. Device memory unless HOST. */
struct hy3_shared_keys {
    const int64_t *first, *end; /* HOST [S] rows that each segment sees; NULL: its own tokens' */
    const void *k, *v;
    float *dk, *dv; /* backward: += */
};

/* The tokens a part works on. */
struct hy3_tokens {
    int64_t T, S;
    const int64_t *starts;    /* HOST [S+1] of samples, or of segments of them */
    const int32_t *positions; /* [T] */
    struct hy3_shared_keys shared;
};

/* Keys and values of earlier tokens of one sample, for generation. Device memory. */
struct hy3_kv_cache {
    void *k, *v;   /* [capacity,K,D] */
    int64_t count; /* rows that are filled; attention appends its T rows without changing count */
};

/* Rows processed by the experts that this rank holds, grouped by expert. Device memory unless
 * HOST. */
struct hy3_expert_rows {
    int64_t groups;             /* held experts */
    const int64_t *starts;      /* HOST [groups+1] rows of each */
    void *rows, *gate_up, *act; /* [R,H], [R,2I], [R,I] */
    void *out;                  /* [R,H] */
    void *d, *dact;             /* [R,H] d(out), then d(rows); [R,I] */
    float *products;            /* of each row, its weight times the weight's gradient */
    const int32_t *to;          /* [R] their places; NULL: as the rows lie */
    int64_t places;             /* in products */
};

/* Where what the experts return lies in rows_out, in drows and in the products. Device memory. */
struct hy3_returned_rows {
    int64_t R, places;       /* rows; products */
    const int32_t *position; /* [T,k] rows of a token; -1: in the one before */
    const float *weights;    /* [T,k] of the rows; NULL: they have been applied */
    const int32_t *place;    /* [T,k] of a token's products */
    const float *products;   /* [places] */
};

/* The arguments of a layer's parts. */
struct hy3_layer {
    const struct hy3_backend *backend;
    struct hy3_stream *stream;
    const struct hy3_shape *shape;
    hy3_dtype dtype;
    int index;
    struct hy3_tokens tokens;
    struct hy3_layer_params params;
    struct hy3_layer_acts *acts;
    struct hy3_layer_scratch *scratch;     /* backward only */
    const struct hy3_expert_rows *experts; /* of the experts part */
    struct hy3_returned_rows returned;     /* of the parts after the experts */
    const struct hy3_lora *lora;           /* with lora_buffers, if the model has an adapter */
    const struct hy3_lora_buffers *lora_buffers;
    const uint64_t *dropout_keys; /* [T] one a token, see struct hy3_dropout; NULL: no dropout */
    uint64_t seed;
    /* recomputation: ids and host_starts are those of the forward pass, out is not needed */
    bool replay;
    bool keeps_attention; /* o and lse are, too */
};

/* Bytes of a [T,H] array. */
static inline size_t hy3_layer_bytes(const struct hy3_layer *layer)
{
    return (size_t)(layer->tokens.T * layer->shape->hidden) * hy3_dtype_size(layer->dtype);
}

/* x -> queries, keys and values of the tokens. */
hy3_status hy3_keys_part_forward(const struct hy3_layer *layer);
/* From dq, dk and dv, of the tokens' own: adds what flows into x to d. */
hy3_status hy3_keys_part_backward(const struct hy3_layer *layer, void *d);

/* Those -> mid. cache: NULL in training; else the tokens continue its sample. */
hy3_status hy3_attention_part_forward(const struct hy3_layer *layer, struct hy3_kv_cache *cache);
/* From d(mid): dq, and dk and dv or those of the shared keys. */
hy3_status hy3_attention_part_backward(const struct hy3_layer *layer, const void *d);

/* mid -> out, for a layer without experts. */
hy3_status hy3_dense_part_forward(const struct hy3_layer *layer);
hy3_status hy3_dense_part_backward(const struct hy3_layer *layer, void *d);

/* mid -> normalised tokens, choice of experts, order of their rows. The row counts are in
 * host_starts once the stream has been waited for (unless replay). */
hy3_status hy3_route_part_forward(const struct hy3_layer *layer);
/* From drows (gradient of the rows), products and d(out): adds everything that flows into mid to
 * d. */
hy3_status hy3_route_part_backward(const struct hy3_layer *layer, void *d);

/* The shared expert; nothing in a model without. */
hy3_status hy3_shared_part_forward(const struct hy3_layer *layer);

/* Of a rank that holds all experts: the rows of its own tokens, what is returned of them, and the
 * copy of the tokens to them. */
struct hy3_expert_rows hy3_own_expert_rows(const struct hy3_layer *layer);
struct hy3_returned_rows hy3_own_returned_rows(const struct hy3_layer *layer);
hy3_status hy3_own_rows_forward(const struct hy3_layer *layer);

/* The experts' MLPs on layer->experts: rows -> out. inner: only what the backward reads, without
 * the last product. */
hy3_status hy3_experts_part_forward(const struct hy3_layer *layer, bool inner);
/* d(out), times the weight of each row, in layer->experts->d becomes d(rows); products. Overwrites
 * gate_up. */
hy3_status hy3_experts_part_backward(const struct hy3_layer *layer);

/* out = mid + shared + weighted rows_out. */
hy3_status hy3_combine_part_forward(const struct hy3_layer *layer);
/* Of a rank that holds all experts. From d(out): drows = d(rows_out). */
hy3_status hy3_combine_part_backward(const struct hy3_layer *layer, const void *d);
