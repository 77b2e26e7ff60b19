/* SPDX-License-Identifier: Apache-2.0 */
/* pass.h - a micro-batch through the network and back: which unit is needed when, what is kept,
 * what recomputed.
 *
 * The gradient a pass adds to the store is that of the SUM of its token losses, each times its
 * weight; the optimizer divides by the weights of all labels of the global batch, which is their
 * number where all weights are 1 (optim/optimizer.h, grad_scale). The schedule of collectives
 * depends on the shape alone, never on tokens or routing: a rank without tokens takes part in every
 * one. */
#pragma once

#include "engine/head_use.h"

struct hy3_pass; /* opaque */

struct hy3_pass_options {
    int64_t max_tokens;  /* of a micro-batch, of all ranks that share it */
    int64_t max_samples; /* of a micro-batch */
    bool backward;       /* training */
    bool checkpointing;  /* keep only each layer's input, recompute the rest in the backward pass */
    bool keep_attention; /* with checkpointing: keep also what attention gave, the costly part */
    bool spill;          /* with checkpointing: what is kept waits in host memory, see spill.h */
    uint64_t seed;       /* of dropout and noise */
    double noise_alpha;  /* of training: noise on the embeddings, see inputs.h; 0: none */
    double label_smoothing; /* of training and evaluation, see struct hy3_loss */
    /* rows that a rank's experts work on at a time, in shares of max_tokens top_k; 0: 1.25 */
    double expert_capacity;
    bool hierarchical_exchange; /* over nodes, see parallel/exchange.h */
};

/* Local. The store is kept until hy3_pass_close. Allocates the workspace for max_tokens. Errors:
 * HY3_ENOMEM naming the size. */
hy3_status hy3_pass_open(const struct hy3_backend *backend, struct hy3_store *store,
                         const struct hy3_pass_options *options, struct hy3_pass **out);
void hy3_pass_close(struct hy3_pass *pass);

/* Bytes of device memory of the workspace. */
size_t hy3_pass_bytes(const struct hy3_pass *pass);

/* The stream all work of the pass runs on. */
struct hy3_stream *hy3_pass_stream(const struct hy3_pass *pass);

/* Looks at the next passes; NULL ends it. `probe` is kept until then. */
void hy3_pass_probe(struct hy3_pass *pass, const struct hy3_probe *probe);

/* Collective on the store's layout. Forward pass only. */
hy3_status hy3_pass_evaluate(struct hy3_pass *pass, const struct hy3_batch *batch,
                             struct hy3_pass_result *result);

/* Collective on the store's layout. Forward and backward; gradients are added to the store. last:
 * the last micro-batch of the step: each unit's gradient is reduced over the ranks as soon as it is
 * complete. A non-finite loss is reported in *result, not as an error, so that all ranks can agree
 * on it. */
hy3_status hy3_pass_train(struct hy3_pass *pass, const struct hy3_batch *batch, bool last,
                          struct hy3_pass_result *result);
