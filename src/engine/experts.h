/* SPDX-License-Identifier: Apache-2.0 */
/* experts.h - the routed rows of a layer through its experts, on this rank or distributed over an
 * expert group.
 *
 * Forward: rows -> rows_out of the layer's activations; a replay leaves what the backward reads and
 * returns nothing. Backward: scratch->drows from d(rows_out) to d(rows), and products. The exchange
 * takes place in every layer, also for a rank without tokens. */
#pragma once

#include "model/layer.h"
#include "parallel/exchange.h"

struct hy3_experts {
    struct hy3_exchange exchange; /* group size 1: unused */
    void *out;       /* [capacity,H] device, provided by the owner: results, or their gradient */
    float *products; /* [capacity] the same; NULL: no backward */
    bool said;       /* that rounds are needed has been logged */
};

/* Collective on the expert group. counts [P,E] HOST: filled in the forward, read in replay and
 * backward. layer->experts is not used. */
hy3_status hy3_experts_forward(struct hy3_experts *experts, const struct hy3_layer *layer,
                               int64_t *counts);
hy3_status hy3_experts_backward(struct hy3_experts *experts, const struct hy3_layer *layer,
                                const int64_t *counts);
