/* SPDX-License-Identifier: Apache-2.0 */
/* units.c - a layer has a unit of its dense part, of its router and of its experts, and of the
 * adapters of the first and the last. */
#include "engine/units.h"

#include "base/memory.h"

enum { LAYER_UNITS = 5 };

/* The units of a layer in the order of its backward pass, -1 where it has none. */
static void layer_units(const struct hy3_params *params, int layer, int units[LAYER_UNITS])
{
    units[0] = hy3_params_unit(params, layer, true);
    units[1] = hy3_params_adapter_unit(params, layer, true);
    units[2] = hy3_params_router_unit(params, layer);
    units[3] = hy3_params_unit(params, layer, false);
    units[4] = hy3_params_adapter_unit(params, layer, false);
}

static void add_layer(const struct hy3_params *params, int layer, struct hy3_unit_order *order)
{
    int units[LAYER_UNITS];

    layer_units(params, layer, units);
    for (int u = LAYER_UNITS - 1; u >= 0; u--)
        if (units[u] >= 0)
            order->units[order->count++] = units[u];
}

hy3_status hy3_units_order(const struct hy3_params *params, bool backward,
                           struct hy3_unit_order *out)
{
    int layers = (int)params->shape.layers;

    *out = (struct hy3_unit_order){0};
    HY3_TRY(hy3_alloc(&out->units, (size_t)(2 * params->units), sizeof *out->units));
    out->units[out->count++] = hy3_params_embedding_unit();
    for (int i = 0; i < layers; i++)
        add_layer(params, i, out);
    out->units[out->count++] = hy3_params_head_unit(params);
    out->forward = out->count;
    for (int i = layers - 1; i >= hy3_params_first_trained(params) && backward; i--)
        add_layer(params, i, out);
    return HY3_OK;
}

hy3_status hy3_units_gather(struct hy3_store *store, struct hy3_stream *stream, int layer)
{
    int units[LAYER_UNITS];

    layer_units(hy3_store_params(store), layer, units);
    for (int u = LAYER_UNITS - 1; u >= 0; u--)
        if (units[u] >= 0)
            HY3_TRY(hy3_store_gather(store, stream, units[u]));
    return HY3_OK;
}

void hy3_units_release(struct hy3_store *store, int layer)
{
    int units[LAYER_UNITS];

    layer_units(hy3_store_params(store), layer, units);
    for (int u = 0; u < LAYER_UNITS; u++)
        if (units[u] >= 0)
            hy3_store_release(store, units[u]);
}

hy3_status hy3_units_open_grads(struct hy3_store *store, struct hy3_stream *stream, int layer)
{
    int units[LAYER_UNITS];

    layer_units(hy3_store_params(store), layer, units);
    for (int u = 0; u < LAYER_UNITS; u++)
        if (units[u] >= 0)
            HY3_TRY(hy3_store_open_grads(store, stream, units[u]));
    return HY3_OK;
}

hy3_status hy3_units_reduce(struct hy3_store *store, struct hy3_stream *stream, int layer,
                            bool last)
{
    int units[LAYER_UNITS];

    layer_units(hy3_store_params(store), layer, units);
    for (int u = 0; u < LAYER_UNITS; u++)
        if (units[u] >= 0)
            HY3_TRY(hy3_store_reduce(store, stream, units[u], last));
    return HY3_OK;
}
