/* SPDX-License-Identifier: Apache-2.0 */
/* exchange.c - parcels, their labels, and the all-to-alls. */
#include "parallel/exchange.h"

enum { WORDS = sizeof(struct hy3_row_label) / sizeof(int32_t) };

static int64_t row_bytes(const struct hy3_exchange *x)
{
    return x->hidden * (int64_t)hy3_dtype_size(x->dtype);
}

static int64_t sent_in(const struct hy3_exchange_leg *leg)
{
    return hy3_exchange_sum(leg->send_first, leg->send_count, leg->group->size);
}

static int64_t received_in(const struct hy3_exchange_leg *leg)
{
    return hy3_exchange_sum(leg->receive_first, leg->receive_count, leg->group->size);
}

/* Labels of a parcel on its last leg. */
static int64_t last_width(const struct hy3_exchange *x, const struct hy3_exchange_way *way)
{
    return way->relayed ? hy3_exchange_width(x, hy3_exchange_held(x)) : way->width;
}

int64_t hy3_exchange_places(const struct hy3_exchange *x, const struct hy3_exchange_round *round)
{
    return received_in(&round->to_rank) * last_width(x, &round->way);
}

/* The parcels for owners of `owner` experts each; where those of each owner begin -> own, unless
 * NULL. */
static hy3_status find_parcels(struct hy3_exchange *x, struct hy3_stream *stream,
                               const struct hy3_exchange_source *source, int64_t owner,
                               int64_t *own)
{
    const struct hy3_exchange_memory *m = &x->memory;
    const struct hy3_route_index index = {.T = source->T,
                                          .G = x->experts / owner,
                                          .k = x->top_k,
                                          .width = owner,
                                          .stride = 1,
                                          .ids = source->ids,
                                          .position = m->parcel,
                                          .token = m->token,
                                          .starts = m->starts};

    x->owner = owner;
    HY3_TRY(x->backend->kernels.route_index(stream, &index));
    if (!own)
        return HY3_OK;
    return x->backend->device.copy(stream, own, m->starts,
                                   (size_t)(index.G + 1) * sizeof *m->starts);
}

hy3_status hy3_exchange_index(struct hy3_exchange *x, struct hy3_stream *stream,
                              const struct hy3_exchange_source *source, bool count)
{
    x->loaded = -1;
    x->owner = 0;
    if (!count)
        return HY3_OK;
    HY3_TRY(find_parcels(x, stream, source, hy3_exchange_held(x), x->own));
    if (!x->near)
        return HY3_OK;
    return find_parcels(x, stream, source, hy3_exchange_of_node(x), x->own + x->group->size + 1);
}

hy3_status hy3_exchange_pack(struct hy3_exchange *x, struct hy3_stream *stream,
                             const struct hy3_exchange_source *source,
                             const struct hy3_exchange_way *way, const void *tokens, void *rows)
{
    int64_t owner = way->relayed ? hy3_exchange_of_node(x) : hy3_exchange_held(x);
    const struct hy3_permute pack = {.T = source->T,
                                     .R = way->parcels,
                                     .H = x->hidden,
                                     .k = x->top_k,
                                     .dtype = x->dtype,
                                     .token = way->rounds == 1 ? x->memory.token : source->token,
                                     .x = tokens,
                                     .y = rows};

    if (way->rounds == 1 && x->owner != owner)
        HY3_TRY(find_parcels(x, stream, source, owner, NULL));
    return x->backend->kernels.permute_forward(stream, &pack);
}

/* Labels of all own parcels. */
static hy3_status label(const struct hy3_exchange *x, struct hy3_stream *stream,
                        const struct hy3_exchange_source *source,
                        const struct hy3_exchange_way *way)
{
    const struct hy3_label labels = {
        .T = source->T,
        .k = x->top_k,
        .width = way->width,
        .held = way->relayed ? hy3_exchange_of_node(x) : hy3_exchange_held(x),
        .sources = x->group->size,
        .source = x->group->rank,
        .ids = source->ids,
        .position = source->position,
        .starts = source->starts,
        .weights = source->weights,
        .parcel = way->rounds == 1 ? x->memory.parcel : source->position,
        .labels = x->memory.labels,
        .slot = x->memory.slot};

    return x->backend->kernels.label(stream, &labels);
}

/* What the labels that came say. */
static hy3_status unlabel(const struct hy3_exchange *x, struct hy3_stream *stream,
                          const struct hy3_exchange_round *round)
{
    const struct hy3_exchange_memory *m = &x->memory;
    const struct hy3_unlabel order = {.N = received_in(&round->to_rank),
                                      .R = round->starts[hy3_exchange_held(x)],
                                      .k = last_width(x, &round->way),
                                      .blocks = x->experts,
                                      .labels = m->came,
                                      .first = m->first,
                                      .token = m->row_token,
                                      .slot = m->row_slot,
                                      .position = m->position,
                                      .weights = m->weights};

    HY3_TRY(x->backend->device.copy(stream, m->first, round->first,
                                    (size_t)x->experts * sizeof *m->first));
    return x->backend->kernels.unlabel(stream, &order);
}

/* Rows and what goes with them along a leg, there or back. NULL labels: rows alone. */
static hy3_status travel(const struct hy3_exchange *x, struct hy3_stream *stream,
                         const struct hy3_exchange_leg *leg, bool back,
                         const struct hy3_all_to_all_part parts[HY3_EXCHANGE_PARTS])
{
    const struct hy3_all_to_all exchange = {
        .parts = {parts[0], parts[1]},
        .send_first = back ? leg->receive_first : leg->send_first,
        .send_count = back ? leg->receive_count : leg->send_count,
        .receive_first = back ? leg->send_first : leg->receive_first,
        .receive_count = back ? leg->send_count : leg->receive_count};

    return x->backend->collectives.all_to_all(stream, leg->group, &exchange,
                                              back ? "sending tokens back from their experts"
                                                   : "sending tokens to their experts");
}

/* Parcels of what came to be passed on, and their labels. */
static hy3_status relabel(const struct hy3_exchange *x, struct hy3_stream *stream,
                          const struct hy3_exchange_round *round)
{
    const struct hy3_relay *r = &x->memory.relay;
    int64_t blocks = x->experts; /* of a rank: its experts from each rank of the group */
    const struct hy3_route_index index = {.T = received_in(&round->to_node),
                                          .G = x->near->size,
                                          .k = round->way.width,
                                          .width = blocks,
                                          .stride = WORDS,
                                          .ids = &r->came->block,
                                          .position = r->parcel,
                                          .token = r->token,
                                          .starts = r->starts};
    const struct hy3_relabel labels = {.T = index.T,
                                       .k = index.k,
                                       .width = last_width(x, &round->way),
                                       .blocks = blocks,
                                       .came = r->came,
                                       .parcel = r->parcel,
                                       .labels = r->labels,
                                       .slot = r->slot};

    HY3_TRY(x->backend->kernels.route_index(stream, &index));
    return x->backend->kernels.relabel(stream, &labels);
}

/* rows -> spare: to the nodes, and to the parcels for their ranks. */
static hy3_status pass_on(const struct hy3_exchange *x, struct hy3_stream *stream,
                          const struct hy3_exchange_round *round, bool is_loaded, const void *rows)
{
    const struct hy3_exchange_memory *m = &x->memory;
    const struct hy3_all_to_all_part parts[] = {{row_bytes(x), rows, m->arrival},
                                                {round->way.width * (int64_t)sizeof *m->labels,
                                                 is_loaded ? NULL : m->labels, m->relay.came}};
    const struct hy3_permute pack = {.T = received_in(&round->to_node),
                                     .R = sent_in(&round->to_rank),
                                     .H = x->hidden,
                                     .k = round->way.width,
                                     .dtype = x->dtype,
                                     .token = m->relay.token,
                                     .x = m->arrival,
                                     .y = x->spare};

    HY3_TRY(travel(x, stream, &round->to_node, false, parts));
    if (!is_loaded)
        HY3_TRY(relabel(x, stream, round));
    return x->backend->kernels.permute_forward(stream, &pack);
}

/* spare -> rows: what the ranks of the node return of each parcel is summed and goes back. */
static hy3_status pass_back(const struct hy3_exchange *x, struct hy3_stream *stream,
                            const struct hy3_exchange_round *round, bool products, void *rows)
{
    const struct hy3_exchange_memory *m = &x->memory;
    const struct hy3_all_to_all_part parts[] = {{row_bytes(x), m->arrival, rows},
                                                {round->way.width * (int64_t)sizeof *m->products,
                                                 products ? m->relay.came_products : NULL,
                                                 m->products}};
    int64_t came = received_in(&round->to_node), sent = sent_in(&round->to_rank);
    const struct hy3_permute sum = {.T = came,
                                    .R = sent,
                                    .H = x->hidden,
                                    .k = round->way.width,
                                    .dtype = x->dtype,
                                    .position = m->relay.parcel,
                                    .dy = x->spare,
                                    .dx = m->arrival};
    const struct hy3_permute each = {.T = sent * last_width(x, &round->way),
                                     .R = came * round->way.width,
                                     .H = 1,
                                     .k = 1,
                                     .dtype = HY3_FP32,
                                     .token = m->relay.slot,
                                     .x = m->relay.products,
                                     .y = m->relay.came_products};

    HY3_TRY(x->backend->kernels.permute_backward(stream, &sum));
    if (products)
        HY3_TRY(x->backend->kernels.permute_forward(stream, &each));
    return travel(x, stream, &round->to_node, true, parts);
}

/* Between the parcels that came and the rows of experts. */
static struct hy3_permute copying(const struct hy3_exchange *x,
                                  const struct hy3_exchange_round *round)
{
    return (struct hy3_permute){.T = received_in(&round->to_rank),
                                .R = round->starts[hy3_exchange_held(x)],
                                .H = x->hidden,
                                .k = last_width(x, &round->way),
                                .dtype = x->dtype,
                                .token = x->memory.row_token,
                                .position = x->memory.position,
                                .x = x->memory.arrival,
                                .dx = x->memory.arrival};
}

/* The same with the weights of the labels. */
static struct hy3_unpermute weighting(const struct hy3_exchange *x,
                                      const struct hy3_exchange_round *round)
{
    return (struct hy3_unpermute){.T = received_in(&round->to_rank),
                                  .R = round->starts[hy3_exchange_held(x)],
                                  .H = x->hidden,
                                  .k = last_width(x, &round->way),
                                  .dtype = x->dtype,
                                  .position = x->memory.position,
                                  .weights = x->memory.weights,
                                  .out = x->memory.arrival};
}

hy3_status hy3_exchange_dispatch(struct hy3_exchange *x, struct hy3_stream *stream,
                                 const struct hy3_exchange_source *source,
                                 const struct hy3_exchange_round *round, const void *rows,
                                 bool weighted, void *received)
{
    const struct hy3_exchange_memory *m = &x->memory;
    bool is_loaded = x->loaded == round->slot, relayed = round->way.relayed;
    struct hy3_permute copy = copying(x, round);
    struct hy3_unpermute weight = weighting(x, round);
    const struct hy3_all_to_all_part parts[] = {
        {row_bytes(x), relayed ? x->spare : rows, m->arrival},
        {last_width(x, &round->way) * (int64_t)sizeof *m->labels,
         is_loaded ? NULL
         : relayed ? m->relay.labels
                   : m->labels,
         m->came}};

    if (!is_loaded)
        HY3_TRY(label(x, stream, source, &round->way));
    if (relayed)
        HY3_TRY(pass_on(x, stream, round, is_loaded, rows));
    HY3_TRY(travel(x, stream, &round->to_rank, false, parts));
    if (!is_loaded)
        HY3_TRY(unlabel(x, stream, round));
    x->loaded = round->slot;
    copy.y = received;
    weight.dout = m->arrival;
    weight.dy = received;
    return weighted ? x->backend->kernels.unpermute_backward(stream, &weight)
                    : x->backend->kernels.permute_forward(stream, &copy);
}

hy3_status hy3_exchange_return(const struct hy3_exchange *x, struct hy3_stream *stream,
                               const struct hy3_exchange_round *round, const void *received,
                               bool weighted, void *rows)
{
    const struct hy3_exchange_memory *m = &x->memory;
    bool relayed = round->way.relayed;
    struct hy3_permute copy = copying(x, round);
    struct hy3_unpermute weight = weighting(x, round);
    const struct hy3_all_to_all_part parts[] = {
        {row_bytes(x), m->arrival, relayed ? x->spare : rows},
        {last_width(x, &round->way) * (int64_t)sizeof *m->products,
         weighted ? NULL : m->came_products, relayed ? m->relay.products : m->products}};

    copy.dy = received;
    weight.y = received;
    HY3_TRY(weighted ? x->backend->kernels.unpermute_forward(stream, &weight)
                     : x->backend->kernels.permute_backward(stream, &copy));
    HY3_TRY(travel(x, stream, &round->to_rank, true, parts));
    return relayed ? pass_back(x, stream, round, !weighted, rows) : HY3_OK;
}
