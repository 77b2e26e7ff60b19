/* SPDX-License-Identifier: Apache-2.0 */
/* acts.h - the memory of a layer: activations that a forward leaves for its backward, and gradients
 * that a backward needs at a time. */
#pragma once

#include "base/arena.h"
#include "base/dtype.h"
#include "model/params.h"

/* Activations that a forward stores for its backward. Device memory unless HOST; row counts in
 * tokens T or routed rows R. */
struct hy3_layer_acts {
    void *x, *mid, *out;                      /* [T,H] residual */
    void *n1, *q_raw, *k_raw, *v, *q, *k, *o; /* [T,H], [T,QD], [T,KD] … */
    float *r1, *r_q, *r_k, *lse;              /* [T], [T,Q], [T,K], [T,Q] */
    void *n2;                                 /* [T,H] */
    float *r2;                                /* [T] */
    void *gate, *up, *act;                    /* [T,I] dense MLP or shared expert */
    void *shared;                             /* [T,H] */
    float *n2_wide;                           /* [T,H] fp32: n2 itself if the dtype is fp32 */
    float *logits, *weights;                  /* [T,E], [T,k] */
    int32_t *ids, *position, *token;          /* [T,k], [T,k], [R] */
    int64_t *starts;                          /* [E+1] */
    int64_t *host_starts;                     /* HOST [E+1]: rows of each expert */
    void *rows;      /* [R,H] the tokens' rows in expert order, or as they travel to other ranks */
    void *rows_out;  /* [R,H] what the experts made of them; of the forward alone, not kept */
    void *held_rows; /* [C,H] rows of this rank's experts; `rows` if it holds all */
    void *held_gate_up, *held_act; /* [C,2I], [C,I] */
};

/* Gradient buffers that one layer's backward needs at a time. */
struct hy3_layer_scratch {
    void *dn, *dq, *dk, *dv, *dq_raw, *dk_raw, *dout; /* [T,H], as q, k, v, q_raw, k_raw, o */
    void *dact;                                       /* [T,I] */
    float *products, *dlogits, *dn_wide; /* [R] NULL where experts are spread, [T,E], [T,H] */
    void *drows;                         /* [R,H] */
    void *held_dact;                     /* [C,I] */
};

/* Determines the sizes of a layer's arrays. */
struct hy3_layer_size {
    int64_t T; /* tokens */
    /* rows of the experts that this rank holds; 0: it holds all, and they are the T top_k rows of
     * its tokens */
    int64_t C;
    hy3_dtype dtype;
    bool keeps_attention; /* o and lse outlive recomputation, too */
};

/* Lays out the activations of layer `index`; with a counting arena it measures. x, out, ids and
 * host_starts (with keeps_attention o and lse, too) outlive recomputation: the engine provides
 * them. */
void hy3_acts_take(const struct hy3_shape *shape, int index, const struct hy3_layer_size *size,
                   struct hy3_arena *arena, struct hy3_layer_acts *acts);

/* Lays out what the forward of layer `index` needs besides, and its backward does not read. */
void hy3_rows_out_take(const struct hy3_shape *shape, int index, const struct hy3_layer_size *size,
                       struct hy3_arena *arena, struct hy3_layer_acts *acts);

/* Scratch large enough for every layer of the model. */
void hy3_scratch_take(const struct hy3_shape *shape, const struct hy3_layer_size *size,
                      struct hy3_arena *arena, struct hy3_layer_scratch *scratch);
