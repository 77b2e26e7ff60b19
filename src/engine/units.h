/* SPDX-License-Identifier: Apache-2.0 */
/* units.h - the units that a layer has, in the order in which a pass needs them. */
#pragma once

#include "parallel/store.h"

/* The units in the order in which a pass gathers them. */
struct hy3_unit_order {
    int *units;
    int forward, count; /* of the forward pass alone; with the backward pass */
};

/* Local. Embedding, layers, head; with `backward` then the layers
 * backwards, down to the first that is trained. The caller owns
 * out->units (hy3_free). Errors: HY3_ENOMEM. */
hy3_status hy3_units_order(const struct hy3_params *params, bool backward,
                           struct hy3_unit_order *out);

/* The functions of parallel/store.h for all units of a layer. */
hy3_status hy3_units_gather(struct hy3_store *store, struct hy3_stream *stream, int layer);
void hy3_units_release(struct hy3_store *store, int layer);
hy3_status hy3_units_open_grads(struct hy3_store *store, struct hy3_stream *stream, int layer);
hy3_status hy3_units_reduce(struct hy3_store *store, struct hy3_stream *stream, int layer,
                            bool last);
