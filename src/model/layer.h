/* SPDX-License-Identifier: Apache-2.0 */
/* layer.h - forward and backward of one decoder layer, on buffers that are given.
 *
 * A layer is a chain of parts; the engine calls them in order and may do something between them
 * (gather weights, exchange tokens with the experts):
 *     attention -> dense MLP
 *     attention -> route -> experts -> combine
 * Each part's forward fills the activations its backward reads. The residual stream runs x -> mid
 * -> out; backward parts take its gradient `d` and change it in place, from d(out) to d(x). Nothing
 * here knows ranks, units or files. */
#ifndef HY3_MODEL_LAYER_H
#define HY3_MODEL_LAYER_H

#include "backend/backend.h"
#include "base/arena.h"
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

/* The tokens a part works on. */
struct hy3_tokens {
    int64_t T, S;
    const int64_t *starts;    /* HOST [S+1] */
    const int32_t *positions; /* [T] */
};

/* Keys and values of earlier tokens of one sample, for generation. Device memory. */
struct hy3_kv_cache {
    void *k, *v;   /* [capacity,K,D] */
    int64_t count; /* rows that are filled; attention appends its T rows without changing count */
};

/* Rows at work in the experts that this rank holds, grouped by expert. Device memory unless
 * HOST. */
struct hy3_expert_rows {
    int64_t groups;             /* held experts */
    const int64_t *starts;      /* HOST [groups+1] rows of each */
    void *rows, *gate_up, *act; /* [R,H], [R,2I], [R,I] */
    void *out;                  /* [R,H] */
    void *d, *dact;             /* [R,H] d(out), then d(rows); [R,I] */
};

/* What a forward leaves for its backward. Device memory unless HOST; row counts in tokens T or
 * routed rows R. */
struct hy3_layer_acts {
    void *x, *mid, *out;                      /* [T,H] residual stream */
    void *n1, *q_raw, *k_raw, *v, *q, *k, *o; /* [T,H], [T,QD], [T,KD] … */
    float *r1, *r_q, *r_k, *lse;              /* [T], [T,Q], [T,K], [T,Q] */
    void *n2;                                 /* [T,H] */
    float *r2;                                /* [T] */
    void *gate, *up, *act;                    /* [T,I] dense MLP or shared expert */
    void *shared;                             /* [T,H] */
    float *n2_wide, *router_wide;    /* [T,H], [E,H] fp32; the originals if the dtype is fp32 */
    float *logits, *weights;         /* [T,E], [T,k] */
    int32_t *ids, *position, *token; /* [T,k], [T,k], [R] */
    int64_t *starts;                 /* [E+1] */
    int64_t *host_starts;            /* HOST [E+1]: rows of each expert */
    void *rows, *rows_out; /* [R,H] the tokens' rows in expert order, and what came of them */
    void *held_rows;       /* [C,H] those that this rank's experts work on: rows, if it holds all */
    void *held_gate_up, *held_act; /* [C,2I], [C,I] */
};

/* Gradient buffers that one layer's backward needs at a time. */
struct hy3_layer_scratch {
    void *dn, *dq, *dk, *dv, *dq_raw, *dk_raw, *dout; /* [T,H], as q, k, v, q_raw, k_raw, o */
    void *dact;                                       /* [T,I] */
    float *dweights, *dlogits, *dn_wide;              /* [T,k], [T,E], [T,H] */
    void *drows;                                      /* [R,H] */
    void *held_dact;                                  /* [C,I] */
};

/* One layer at work. */
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
    const struct hy3_lora *lora;           /* with lora_buffers, if the model has an adapter */
    const struct hy3_lora_buffers *lora_buffers;
    const uint64_t *dropout_keys; /* [T] one a token, see struct hy3_dropout; NULL: no dropout */
    uint64_t seed;
    /* recomputation: ids and host_starts are those of the forward pass, out is not needed */
    bool replay;
};

/* What the sizes of a layer's arrays follow from. */
struct hy3_layer_size {
    int64_t T; /* tokens */
    int64_t
        /* rows of the experts that this rank holds; 0: it holds all, and they are the T top_k rows
         * of its tokens */
        C;
    hy3_dtype dtype;
};

/* Lays out the activations of layer `index`; with a counting arena it measures. x, out, ids and
 * host_starts outlive recomputation, so the engine brings them. */
void hy3_layer_acts_take(const struct hy3_shape *shape, int index,
                         const struct hy3_layer_size *size, struct hy3_arena *arena,
                         struct hy3_layer_acts *acts);

/* Scratch large enough for every layer of the model. */
void hy3_layer_scratch_take(const struct hy3_shape *shape, const struct hy3_layer_size *size,
                            struct hy3_arena *arena, struct hy3_layer_scratch *scratch);

/* x -> mid. cache: NULL in training; else the tokens continue its sample. */
hy3_status hy3_attention_part_forward(const struct hy3_layer *layer, struct hy3_kv_cache *cache);
hy3_status hy3_attention_part_backward(const struct hy3_layer *layer, void *d);

/* mid -> out, for a layer without experts. */
hy3_status hy3_dense_part_forward(const struct hy3_layer *layer);
hy3_status hy3_dense_part_backward(const struct hy3_layer *layer, void *d);

/* mid -> normalised tokens, choice of experts, rows in expert order, and the shared expert. Leaves
 * the row counts in host_starts (synchronises, unless replay). */
hy3_status hy3_route_part_forward(const struct hy3_layer *layer);
/* From drows (gradient of the rows), dweights and d(out): adds everything that flows into mid to
 * d. */
hy3_status hy3_route_part_backward(const struct hy3_layer *layer, void *d);

/* The rows of a rank that holds all experts: those of its own tokens. */
struct hy3_expert_rows hy3_own_expert_rows(const struct hy3_layer *layer);

/* The experts' MLPs on layer->experts: rows -> out. inner: only what the backward reads, without
 * the last product. */
hy3_status hy3_experts_part_forward(const struct hy3_layer *layer, bool inner);
/* d(out) in layer->experts->d becomes d(rows). Overwrites gate_up. */
hy3_status hy3_experts_part_backward(const struct hy3_layer *layer);

/* out = mid + shared + weighted rows_out. */
hy3_status hy3_combine_part_forward(const struct hy3_layer *layer);
/* From d(out): drows = d(rows_out), dweights. */
hy3_status hy3_combine_part_backward(const struct hy3_layer *layer, const void *d);

#endif
