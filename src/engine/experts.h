/* SPDX-License-Identifier: Apache-2.0 */
/* experts.h - the routed rows of a layer through its experts, on this rank or distributed over an
 * expert group.
 *
 * Forward: n2 -> rows_out of the layer's activations; a replay leaves what the backward reads and
 * returns nothing. Backward: scratch->drows, the gradient of the rows, and their products, from
 * d(out). The exchange takes place in every layer, also for a rank without tokens. */
#pragma once

#include "model/layer.h"
#include "parallel/exchange.h"

struct hy3_experts {
    struct hy3_exchange exchange; /* group size 1: unused */
    void *out; /* [capacity,H] device, provided by the owner: results, or their gradient */
    bool said; /* that rounds are needed has been logged */
};

/* Local, after the route part: what the host must know of the rows before they travel. Waits for
 * the device, unless replay. */
hy3_status hy3_experts_index(struct hy3_experts *experts, const struct hy3_layer *layer);

/* Collective on the expert group. counts [P, hy3_exchange_counts] HOST: filled in the forward, read
 * in replay and backward. layer->experts is not used; the backward reads layer->returned. */
hy3_status hy3_experts_forward(struct hy3_experts *experts, const struct hy3_layer *layer,
                               int64_t *counts);
hy3_status hy3_experts_backward(struct hy3_experts *experts, const struct hy3_layer *layer,
                                const int64_t *counts, const void *d);

/* Local. Where forward and backward leave what they return. */
struct hy3_returned_rows hy3_experts_returned(const struct hy3_experts *experts,
                                              const struct hy3_layer *layer, const int64_t *counts);
