/* SPDX-License-Identifier: Apache-2.0 */
/* chain.c - attention, then a dense MLP or experts. */
#include "engine/chain.h"

hy3_status hy3_chain_forward(struct hy3_experts *experts, const struct hy3_layer *layer,
                             struct hy3_kv_cache *cache, int64_t *counts)
{
    HY3_TRY(hy3_attention_part_forward(layer, cache));
    if (!hy3_shape_is_moe(layer->shape, layer->index))
        return hy3_dense_part_forward(layer);
    HY3_TRY(hy3_route_part_forward(layer));
    HY3_TRY(hy3_experts_forward(experts, layer, counts));
    return layer->replay ? HY3_OK : hy3_combine_part_forward(layer);
}

hy3_status hy3_chain_backward(struct hy3_experts *experts, const struct hy3_layer *layer,
                              const int64_t *counts, void *d)
{
    if (hy3_shape_is_moe(layer->shape, layer->index)) {
        HY3_TRY(hy3_combine_part_backward(layer, d));
        HY3_TRY(hy3_experts_backward(experts, layer, counts));
        HY3_TRY(hy3_route_part_backward(layer, d));
    } else {
        HY3_TRY(hy3_dense_part_backward(layer, d));
    }
    return hy3_attention_part_backward(layer, d);
}
