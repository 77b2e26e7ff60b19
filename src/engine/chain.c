/* SPDX-License-Identifier: Apache-2.0 */
/* chain.c - attention, then a dense MLP or experts. */
#include "engine/chain.h"

static hy3_status share_keys(struct hy3_sequence *sequence, const struct hy3_layer *layer)
{
    return hy3_sequence_gather(sequence, layer->stream, layer->index, layer->acts->k,
                               layer->acts->v, layer->tokens.T);
}

hy3_status hy3_chain_forward(struct hy3_experts *experts, struct hy3_sequence *sequence,
                             const struct hy3_layer *layer, struct hy3_kv_cache *cache,
                             int64_t *counts)
{
    struct hy3_layer combined = *layer;

    HY3_TRY(hy3_keys_part_forward(layer));
    if (sequence)
        HY3_TRY(share_keys(sequence, layer));
    HY3_TRY(hy3_attention_part_forward(layer, cache));
    if (!hy3_shape_is_moe(layer->shape, layer->index))
        return hy3_dense_part_forward(layer);
    HY3_TRY(hy3_route_part_forward(layer));
    HY3_TRY(hy3_experts_index(experts, layer));
    HY3_TRY(hy3_shared_part_forward(layer));
    HY3_TRY(hy3_experts_forward(experts, layer, counts));
    if (layer->replay)
        return HY3_OK;
    combined.returned = hy3_experts_returned(experts, layer, counts);
    return hy3_combine_part_forward(&combined);
}

/* From d(mid) to d(x). */
static hy3_status attention_backward(struct hy3_sequence *sequence, const struct hy3_layer *layer,
                                     void *d)
{
    if (sequence) {
        HY3_TRY(share_keys(sequence, layer));
        HY3_TRY(hy3_sequence_open_grads(sequence, layer->stream));
    }
    HY3_TRY(hy3_attention_part_backward(layer, d));
    if (sequence)
        HY3_TRY(hy3_sequence_reduce(sequence, layer->stream, layer->scratch->dk, layer->scratch->dv,
                                    layer->tokens.T));
    return hy3_keys_part_backward(layer, d);
}

hy3_status hy3_chain_backward(struct hy3_experts *experts, struct hy3_sequence *sequence,
                              const struct hy3_layer *layer, const int64_t *counts, void *d)
{
    struct hy3_layer routed = *layer;

    if (hy3_shape_is_moe(layer->shape, layer->index)) {
        routed.returned = hy3_experts_returned(experts, layer, counts);
        HY3_TRY(hy3_experts_backward(experts, &routed, counts, d));
        HY3_TRY(hy3_route_part_backward(&routed, d));
    } else {
        HY3_TRY(hy3_dense_part_backward(layer, d));
    }
    return attention_backward(sequence, layer, d);
}
