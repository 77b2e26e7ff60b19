/* SPDX-License-Identifier: Apache-2.0 */
/* chain.h - the parts of a layer (model/layer.h) one after the other, with the exchange between
 * them. Training, evaluation and generation run this chain. */
#pragma once

#include "engine/experts.h"
#include "parallel/sequence.h"

/* Collective on the expert group and the sequence group. x -> out. sequence: NULL, no ranks share
 * the tokens. cache, counts: as for the attention part and for hy3_experts_forward. */
hy3_status hy3_chain_forward(struct hy3_experts *experts, struct hy3_sequence *sequence,
                             const struct hy3_layer *layer, struct hy3_kv_cache *cache,
                             int64_t *counts);

/* Collective on the same. d: from d(out) to d(x). */
hy3_status hy3_chain_backward(struct hy3_experts *experts, struct hy3_sequence *sequence,
                              const struct hy3_layer *layer, const int64_t *counts, void *d);
