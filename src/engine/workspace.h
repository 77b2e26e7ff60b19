/* SPDX-License-Identifier: Apache-2.0 */
/* workspace.h - the memory of a pass: its layout for T tokens.
 *
 * One arena of device memory, sized before the first step by running the same code on a counting
 * arena, so the accounting is the program's own:
 *     batch, residual of every layer, chosen experts             for the whole micro-batch
 *     activations: of every layer, or (gradient checkpointing) of one at a time
 *     the experts' results of a layer (forward), the head's buffers, gradient scratch
 *                                                                  one after the other */
#pragma once

#include "model/layer.h"
#include "parallel/exchange.h"
#include "parallel/sequence.h"

struct hy3_workspace_shape {
    const struct hy3_shape *model;
    const struct hy3_lora *lora;         /* NULL: no adapter */
    struct hy3_layer_size size;          /* of this rank's tokens of a micro-batch */
    struct hy3_sequence *sequence;       /* NULL: they are all of its tokens, */
    int64_t whole;                       /* else of these */
    const struct hy3_exchange *exchange; /* where experts are spread over ranks */
    bool backward;                       /* training; else only the forward pass */
    bool checkpointing;                  /* activations of one layer at a time */
    bool spill;                          /* inputs and `o` of a few layers only, see spill.h */
    bool noise;                          /* in training the embeddings get noise */
};

/* Buffers that live through a micro-batch. Device memory unless HOST. */
struct hy3_stream_buffers {
    int32_t *ids, *positions; /* [T] */
    int32_t *label_token;     /* [T] token of the n-th label */
    int32_t *label_position;  /* [T] number of a token's label, -1: none */
    int32_t *targets;         /* [T] token to predict of the n-th label */
    float *weights;           /* [T] of the n-th label's loss, where a batch has weights */
    void **x;         /* HOST [layers+1] of [T,H]: input of each layer, output of the last */
    void **o;         /* HOST [layers] of [T,QD]: what attention gave, where it is kept */
    float **lse;      /* HOST [layers] of [T,Q], the same */
    int32_t **chosen; /* HOST [layers] of [T,k], NULL in dense layers */
    void *d;          /* [T,H] gradient of the residual */
    struct hy3_lora_buffers lora;
    uint64_t *token_keys;                /* [T] of dropout and noise */
    float *noise_scale;                  /* [T] */
    struct hy3_exchange_memory exchange; /* where experts are spread over ranks */
    void *expert_out;                    /* [C,H] the same */
};

/* Local. The HOST arrays of a model of so many layers; closed also after an error. */
hy3_status hy3_stream_buffers_open(int64_t layers, struct hy3_stream_buffers *buffers);
void hy3_stream_buffers_close(struct hy3_stream_buffers *buffers);

void hy3_stream_buffers_take(const struct hy3_workspace_shape *shape, struct hy3_arena *arena,
                             struct hy3_stream_buffers *out);

/* Bytes of device memory a pass needs at its peak. Errors: HY3_ENOMEM. */
hy3_status hy3_workspace_measure(const struct hy3_workspace_shape *shape, size_t *bytes);
