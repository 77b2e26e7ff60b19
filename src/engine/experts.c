/* SPDX-License-Identifier: Apache-2.0 */
/* experts.c - here, or there in rounds. */
#include "engine/experts.h"

#include "base/log.h"

/* What the layer's experts work on in a round; `d` shares memory with `out`, which the backward
 * does not read. */
static struct hy3_expert_rows received_rows(const struct hy3_experts *x,
                                            const struct hy3_layer *layer,
                                            const struct hy3_exchange_round *round)
{
    const struct hy3_layer_acts *a = layer->acts;

    return (struct hy3_expert_rows){.groups = x->exchange.experts / x->exchange.group->size,
                                    .starts = round->starts,
                                    .rows = a->held_rows,
                                    .gate_up = a->held_gate_up,
                                    .act = a->held_act,
                                    .out = x->out,
                                    .d = x->out,
                                    .dact = layer->scratch ? layer->scratch->held_dact : NULL,
                                    .products = x->exchange.memory.came_products,
                                    .to = x->exchange.memory.row_slot,
                                    .places = hy3_exchange_places(&x->exchange, round)};
}

static struct hy3_exchange_source source_of(const struct hy3_layer *layer)
{
    const struct hy3_layer_acts *a = layer->acts;

    return (struct hy3_exchange_source){.T = layer->tokens.T,
                                        .ids = a->ids,
                                        .position = a->position,
                                        .token = a->token,
                                        .starts = a->starts,
                                        .weights = a->weights};
}

static bool is_alone(const struct hy3_experts *x)
{
    return x->exchange.group->size == 1;
}

hy3_status hy3_experts_index(struct hy3_experts *x, const struct hy3_layer *layer)
{
    const struct hy3_exchange_source source = source_of(layer);

    if (!is_alone(x))
        HY3_TRY(hy3_exchange_index(&x->exchange, layer->stream, &source, !layer->replay));
    return layer->replay ? HY3_OK : layer->backend->device.synchronize(layer->stream);
}

static void say_rounds(struct hy3_experts *x, const struct hy3_layer *layer,
                       const struct hy3_exchange_way *way)
{
    if (way->rounds == 1 || x->said)
        return;
    x->said = true;
    hy3_log(HY3_LOG_INFO,
            "layer %d: the experts of one rank are sent %lld rows, its workspace holds %lld: they "
            "work in %lld rounds (expert_capacity; said once)",
            layer->index, (long long)way->most, (long long)x->exchange.capacity,
            (long long)way->rounds);
}

/* Round r. A single one is planned in the forward and kept for replay and backward. */
static hy3_status plan_round(struct hy3_experts *x, const struct hy3_layer *layer,
                             const int64_t *counts, int64_t rounds, int64_t r, bool is_new,
                             struct hy3_exchange_round *round)
{
    if (rounds > 1) /* the round before has been read */
        HY3_TRY(layer->backend->device.synchronize(layer->stream));
    if (rounds > 1 || is_new)
        hy3_exchange_plan(&x->exchange, counts, layer->index, r, round);
    else
        *round = hy3_exchange_planned(&x->exchange, counts, layer->index);
    return HY3_OK;
}

static hy3_status forward_alone(const struct hy3_layer *layer)
{
    const struct hy3_expert_rows rows = hy3_own_expert_rows(layer);
    struct hy3_layer working = *layer;

    working.experts = &rows;
    HY3_TRY(hy3_own_rows_forward(layer));
    return hy3_experts_part_forward(&working, layer->replay);
}

static hy3_status backward_alone(const struct hy3_layer *layer, const void *d)
{
    const struct hy3_expert_rows rows = hy3_own_expert_rows(layer);
    struct hy3_layer working = *layer;

    working.experts = &rows;
    HY3_TRY(hy3_combine_part_backward(layer, d));
    return hy3_experts_part_backward(&working);
}

hy3_status hy3_experts_forward(struct hy3_experts *x, const struct hy3_layer *layer,
                               int64_t *counts)
{
    const struct hy3_exchange_source source = source_of(layer);
    const struct hy3_layer_acts *a = layer->acts;
    struct hy3_layer working = *layer;
    struct hy3_expert_rows rows;
    struct hy3_exchange_round round;
    struct hy3_exchange_way way;

    if (is_alone(x))
        return forward_alone(layer);
    working.experts = &rows;
    if (!layer->replay)
        hy3_exchange_count(&x->exchange, a->host_starts, counts);
    way = hy3_exchange_way(&x->exchange, counts);
    say_rounds(x, layer, &way);
    HY3_TRY(hy3_exchange_pack(&x->exchange, layer->stream, &source, &way, a->n2, a->rows));
    for (int64_t r = 0; r < way.rounds; r++) {
        HY3_TRY(plan_round(x, layer, counts, way.rounds, r, !layer->replay, &round));
        rows = received_rows(x, layer, &round);
        HY3_TRY(hy3_exchange_dispatch(&x->exchange, layer->stream, &source, &round, a->rows, false,
                                      rows.rows));
        HY3_TRY(hy3_experts_part_forward(&working, layer->replay));
        if (!layer->replay)
            HY3_TRY(hy3_exchange_return(&x->exchange, layer->stream, &round, rows.out, true,
                                        a->rows_out));
    }
    return HY3_OK;
}

hy3_status hy3_experts_backward(struct hy3_experts *x, const struct hy3_layer *layer,
                                const int64_t *counts, const void *d)
{
    const struct hy3_exchange_source source = source_of(layer);
    void *drows = layer->scratch->drows;
    struct hy3_layer working = *layer;
    struct hy3_expert_rows rows;
    struct hy3_exchange_round round;
    struct hy3_exchange_way way;

    if (is_alone(x))
        return backward_alone(layer, d);
    working.experts = &rows;
    way = hy3_exchange_way(&x->exchange, counts);
    if (x->exchange.loaded != layer->index) /* activations are kept: there was no replay */
        HY3_TRY(hy3_exchange_index(&x->exchange, layer->stream, &source, false));
    HY3_TRY(hy3_exchange_pack(&x->exchange, layer->stream, &source, &way, d, drows));
    for (int64_t r = 0; r < way.rounds; r++) {
        HY3_TRY(plan_round(x, layer, counts, way.rounds, r, false, &round));
        rows = received_rows(x, layer, &round);
        if (way.rounds > 1) { /* the forward's activations are those of its last round */
            HY3_TRY(hy3_exchange_dispatch(&x->exchange, layer->stream, &source, &round,
                                          layer->acts->rows, false, rows.rows));
            HY3_TRY(hy3_experts_part_forward(&working, true));
        }
        HY3_TRY(hy3_exchange_dispatch(&x->exchange, layer->stream, &source, &round, drows, true,
                                      rows.d));
        HY3_TRY(hy3_experts_part_backward(&working));
        HY3_TRY(hy3_exchange_return(&x->exchange, layer->stream, &round, rows.d, false, drows));
    }
    return HY3_OK;
}

struct hy3_returned_rows hy3_experts_returned(const struct hy3_experts *x,
                                              const struct hy3_layer *layer, const int64_t *counts)
{
    const struct hy3_exchange_memory *m = &x->exchange.memory;
    struct hy3_exchange_way way;

    if (is_alone(x))
        return hy3_own_returned_rows(layer);
    way = hy3_exchange_way(&x->exchange, counts);
    return (struct hy3_returned_rows){.R = way.parcels,
                                      .places = way.parcels * way.width,
                                      .position =
                                          way.rounds == 1 ? m->parcel : layer->acts->position,
                                      .place = m->slot,
                                      .products = m->products};
}
