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
                                    .products = x->products,
                                    .to = x->exchange.token};
}

static void say_rounds(struct hy3_experts *x, const struct hy3_layer *layer, int64_t rounds,
                       int64_t most)
{
    if (rounds == 1 || x->said)
        return;
    x->said = true;
    hy3_log(HY3_LOG_INFO,
            "layer %d: the experts of one rank are sent %lld rows, its workspace holds %lld: they "
            "work in %lld rounds (expert_capacity; said once)",
            layer->index, (long long)most, (long long)x->exchange.capacity, (long long)rounds);
}

/* Round r of `rounds`. A single one is planned in the forward and kept for replay and backward. */
static hy3_status plan_round(struct hy3_experts *x, const struct hy3_layer *layer,
                             const int64_t *counts, int64_t rounds, int64_t r, bool is_new,
                             struct hy3_exchange_round *round)
{
    if (rounds > 1) /* the round before has been read */
        HY3_TRY(layer->backend->device.synchronize(layer->stream));
    if (rounds > 1 || is_new)
        hy3_exchange_plan(&x->exchange, counts, layer->index, r, round);
    else
        *round = hy3_exchange_planned(&x->exchange, layer->index);
    return hy3_exchange_load(&x->exchange, layer->stream, round);
}

hy3_status hy3_experts_forward(struct hy3_experts *x, const struct hy3_layer *layer,
                               int64_t *counts)
{
    struct hy3_layer working = *layer;
    struct hy3_expert_rows rows = hy3_own_expert_rows(layer);
    struct hy3_exchange_round round;
    int64_t rounds, most;

    working.experts = &rows;
    if (x->exchange.group->size == 1)
        return hy3_experts_part_forward(&working, layer->replay);
    if (!layer->replay)
        hy3_exchange_count(&x->exchange, layer->acts->host_starts, counts);
    rounds = hy3_exchange_rounds(&x->exchange, counts, &most);
    say_rounds(x, layer, rounds, most);
    for (int64_t r = 0; r < rounds; r++) {
        HY3_TRY(plan_round(x, layer, counts, rounds, r, !layer->replay, &round));
        rows = received_rows(x, layer, &round);
        HY3_TRY(hy3_exchange_dispatch(&x->exchange, layer->stream, &round, layer->acts->rows,
                                      rows.rows));
        HY3_TRY(hy3_experts_part_forward(&working, layer->replay));
        if (!layer->replay)
            HY3_TRY(hy3_exchange_return(
                &x->exchange, layer->stream, &round,
                &(struct hy3_returned){.received = rows.out, .rows = layer->acts->rows_out}));
    }
    return HY3_OK;
}

hy3_status hy3_experts_backward(struct hy3_experts *x, const struct hy3_layer *layer,
                                const int64_t *counts)
{
    struct hy3_layer working = *layer;
    struct hy3_expert_rows rows = hy3_own_expert_rows(layer);
    struct hy3_exchange_round round;
    int64_t rounds, most;

    working.experts = &rows;
    if (x->exchange.group->size == 1)
        return hy3_experts_part_backward(&working);
    rounds = hy3_exchange_rounds(&x->exchange, counts, &most);
    for (int64_t r = 0; r < rounds; r++) {
        HY3_TRY(plan_round(x, layer, counts, rounds, r, false, &round));
        rows = received_rows(x, layer, &round);
        if (rounds > 1) { /* the forward's activations are those of its last round */
            HY3_TRY(hy3_exchange_dispatch(&x->exchange, layer->stream, &round, layer->acts->rows,
                                          rows.rows));
            HY3_TRY(hy3_experts_part_forward(&working, true));
        }
        HY3_TRY(hy3_exchange_dispatch(&x->exchange, layer->stream, &round, layer->scratch->drows,
                                      rows.d));
        HY3_TRY(hy3_experts_part_backward(&working));
        HY3_TRY(hy3_exchange_return(&x->exchange, layer->stream, &round,
                                    &(struct hy3_returned){.received = rows.d,
                                                           .rows = layer->scratch->drows,
                                                           .received_products = rows.products,
                                                           .products = layer->scratch->products}));
    }
    return HY3_OK;
}
