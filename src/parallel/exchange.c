/* SPDX-License-Identifier: Apache-2.0 */
/* exchange.c - the order of parcels and rows in a round, and the two all-to-alls. */
#include "parallel/exchange.h"

#include "base/span.h"

/* A slot of `host`: four arrays [P], then starts [E/P+1], then first [E]. After the slots: where a
 * rank's own parcels for each rank begin [P+1], then its own counts [E+P]. */
enum { SEND_FIRST, SEND_COUNT, RECEIVE_FIRST, RECEIVE_COUNT, ARRAYS };

static int64_t ranks_of(const struct hy3_exchange *x)
{
    return x->group->size;
}

static int64_t held_experts(const struct hy3_exchange *x)
{
    return x->experts / ranks_of(x);
}

static int64_t slot_size(const struct hy3_exchange *x)
{
    return ARRAYS * ranks_of(x) + held_experts(x) + 1 + x->experts;
}

static int64_t *array(const struct hy3_exchange *x, int slot, int which)
{
    return x->host + slot * slot_size(x) + (ptrdiff_t)which * x->group->size;
}

static int64_t *starts_of_received(const struct hy3_exchange *x, int slot)
{
    return array(x, slot, ARRAYS);
}

static int64_t *first_of_blocks(const struct hy3_exchange *x, int slot)
{
    return starts_of_received(x, slot) + held_experts(x) + 1;
}

static int64_t *own_parcels(const struct hy3_exchange *x)
{
    return x->host + x->slots * slot_size(x);
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Labels of a parcel, where it is a token's and not a row's. */
static int64_t full_width(const struct hy3_exchange *x)
{
    return smaller(x->top_k, held_experts(x));
}

void hy3_exchange_take(const struct hy3_exchange *x, int64_t T, bool backward,
                       struct hy3_arena *arena, struct hy3_exchange_memory *m)
{
    const size_t index = sizeof(int32_t);
    int64_t R = T * x->top_k, parcels = T * smaller(x->top_k, ranks_of(x)), width = full_width(x);
    int64_t sent = larger(R, parcels * width), came = x->capacity * width;

    m->arrival = hy3_arena_take(arena, x->capacity * x->hidden, hy3_dtype_size(x->dtype));
    m->parcel = hy3_arena_take(arena, R, index);
    m->token = hy3_arena_take(arena, parcels, index);
    m->starts = hy3_arena_take(arena, ranks_of(x) + 1, sizeof *m->starts);
    m->labels = hy3_arena_take(arena, sent, sizeof *m->labels);
    m->slot = hy3_arena_take(arena, R, index);
    m->came = hy3_arena_take(arena, came, sizeof *m->came);
    m->row_token = hy3_arena_take(arena, x->capacity, index);
    m->row_slot = hy3_arena_take(arena, x->capacity, index);
    m->position = hy3_arena_take(arena, came, index);
    m->weights = hy3_arena_take(arena, came, sizeof *m->weights);
    m->first = hy3_arena_take(arena, x->experts, sizeof *m->first);
    m->products = backward ? hy3_arena_take(arena, sent, sizeof *m->products) : NULL;
    m->came_products = backward ? hy3_arena_take(arena, came, sizeof *m->came_products) : NULL;
}

hy3_status hy3_exchange_open(struct hy3_exchange *x)
{
    x->loaded = -1;
    return hy3_device_host_array(
        &x->backend->device,
        (size_t)(x->slots * slot_size(x) + ranks_of(x) + 1 + hy3_exchange_counts(x)),
        sizeof *x->host, &x->host);
}

void hy3_exchange_close(struct hy3_exchange *x)
{
    if (x->host)
        x->backend->device.free_host(x->host);
    x->host = NULL;
}

hy3_status hy3_exchange_index(struct hy3_exchange *x, struct hy3_stream *stream,
                              const struct hy3_exchange_source *source, bool count)
{
    const struct hy3_exchange_memory *m = &x->memory;
    const struct hy3_route_index index = {.T = source->T,
                                          .G = ranks_of(x),
                                          .k = x->top_k,
                                          .width = held_experts(x),
                                          .ids = source->ids,
                                          .position = m->parcel,
                                          .token = m->token,
                                          .starts = m->starts};

    x->loaded = -1;
    HY3_TRY(x->backend->kernels.route_index(stream, &index));
    if (!count)
        return HY3_OK;
    return x->backend->device.copy(stream, own_parcels(x), m->starts,
                                   (size_t)(ranks_of(x) + 1) * sizeof *m->starts);
}

void hy3_exchange_count(const struct hy3_exchange *x, const int64_t *starts, int64_t *all)
{
    const int64_t *parcels = own_parcels(x);
    int64_t *own = own_parcels(x) + ranks_of(x) + 1;

    for (int64_t e = 0; e < x->experts; e++)
        own[e] = starts[e + 1] - starts[e];
    for (int64_t d = 0; d < ranks_of(x); d++)
        own[x->experts + d] = parcels[d + 1] - parcels[d];
    hy3_group_allgather(x->group, own, (int)hy3_exchange_counts(x), all,
                        "counting the experts' rows");
}

/* Rows that rank p has for expert e. */
static int64_t rows_of(const struct hy3_exchange *x, const int64_t *all, int64_t p, int64_t e)
{
    return all[p * hy3_exchange_counts(x) + e];
}

/* Parcels that rank p has for rank d, where all travel in one round. */
static int64_t parcels_of(const struct hy3_exchange *x, const int64_t *all, int64_t p, int64_t d)
{
    return all[p * hy3_exchange_counts(x) + x->experts + d];
}

struct hy3_exchange_way hy3_exchange_way(const struct hy3_exchange *x, const int64_t *all)
{
    struct hy3_exchange_way way = {.rounds = 1, .width = full_width(x)};
    int64_t own = 0;

    for (int64_t d = 0; d < ranks_of(x); d++) {
        int64_t rows = 0;

        for (int64_t e = d * held_experts(x); e < (d + 1) * held_experts(x); e++) {
            for (int64_t p = 0; p < ranks_of(x); p++)
                rows += rows_of(x, all, p, e);
            own += rows_of(x, all, x->group->rank, e);
        }
        way.most = larger(way.most, rows);
        way.parcels += parcels_of(x, all, x->group->rank, d);
    }
    if (way.most > x->capacity) {
        way.rounds = (way.most + x->capacity - 1) / x->capacity;
        way.parcels = own;
        way.width = 1;
    }
    return way;
}

/* The rows of a round in a destination's order, and where the next interval begins. */
struct window {
    struct hy3_span round;
    int64_t at;
};

/* Advances over an interval of `count` rows; how many of them are in the round, and the first of
 * these. */
static int64_t take(struct window *w, int64_t count, int64_t *first)
{
    struct hy3_span part = hy3_span_intersect((struct hy3_span){w->at, count}, w->round);

    *first = part.first - w->at;
    w->at += count;
    return part.count;
}

static struct window window_of(const struct hy3_exchange *x, int64_t round)
{
    return (struct window){.round = {round * x->capacity, x->capacity}};
}

/* Which of the own rows go to each rank. */
static void arrange_sending(const struct hy3_exchange *x, const int64_t *all, int slot,
                            int64_t round)
{
    int64_t *first = array(x, slot, SEND_FIRST), *count = array(x, slot, SEND_COUNT), row = 0;

    for (int64_t d = 0; d < ranks_of(x); d++) {
        struct window w = window_of(x, round);

        first[d] = row;
        count[d] = 0;
        for (int64_t e = d * held_experts(x); e < (d + 1) * held_experts(x); e++) {
            for (int64_t p = 0; p < ranks_of(x); p++) {
                int64_t from, n = take(&w, rows_of(x, all, p, e), &from);

                if (p != x->group->rank)
                    continue;
                if (n > 0 && count[d] == 0)
                    first[d] = row + from;
                count[d] += n;
                row += rows_of(x, all, p, e);
            }
        }
    }
}

/* The rows of each held expert, where those from each rank begin, and how many come from it. */
static void arrange_rows(const struct hy3_exchange *x, const int64_t *all, int slot, int64_t round)
{
    int64_t *count = array(x, slot, RECEIVE_COUNT), *starts = starts_of_received(x, slot);
    int64_t *first = first_of_blocks(x, slot), held = held_experts(x), ranks = ranks_of(x);
    struct window w = window_of(x, round);

    memset(count, 0, (size_t)ranks * sizeof *count);
    starts[0] = 0;
    for (int64_t b = 0; b < x->experts; b++) { /* E/P experts times P ranks */
        int64_t e = b / ranks, p = b % ranks, from;
        int64_t n = take(&w, rows_of(x, all, p, x->group->rank * held + e), &from);

        if (p == 0)
            starts[e + 1] = starts[e];
        first[b] = starts[e + 1] - from;
        starts[e + 1] += n;
        count[p] += n;
    }
}

/* Parcels of tokens instead of rows. */
static void arrange_parcels(const struct hy3_exchange *x, const int64_t *all, int slot)
{
    int64_t *first = array(x, slot, SEND_FIRST), row = 0, me = x->group->rank;

    for (int64_t d = 0; d < ranks_of(x); d++) {
        first[d] = row;
        array(x, slot, SEND_COUNT)[d] = parcels_of(x, all, me, d);
        array(x, slot, RECEIVE_COUNT)[d] = parcels_of(x, all, d, me);
        row += parcels_of(x, all, me, d);
    }
}

struct hy3_exchange_round hy3_exchange_planned(const struct hy3_exchange *x, const int64_t *all,
                                               int slot)
{
    return (struct hy3_exchange_round){.slot = slot,
                                       .way = hy3_exchange_way(x, all),
                                       .send_first = array(x, slot, SEND_FIRST),
                                       .send_count = array(x, slot, SEND_COUNT),
                                       .receive_first = array(x, slot, RECEIVE_FIRST),
                                       .receive_count = array(x, slot, RECEIVE_COUNT),
                                       .starts = starts_of_received(x, slot),
                                       .first = first_of_blocks(x, slot)};
}

void hy3_exchange_plan(struct hy3_exchange *x, const int64_t *all, int slot, int64_t round,
                       struct hy3_exchange_round *out)
{
    int64_t *first = array(x, slot, RECEIVE_FIRST), *count = array(x, slot, RECEIVE_COUNT);

    *out = hy3_exchange_planned(x, all, slot);
    arrange_rows(x, all, slot, round);
    if (out->way.rounds == 1)
        arrange_parcels(x, all, slot);
    else
        arrange_sending(x, all, slot, round);
    first[0] = 0;
    for (int p = 1; p < x->group->size; p++)
        first[p] = first[p - 1] + count[p - 1];
    x->loaded = -1;
}

hy3_status hy3_exchange_pack(const struct hy3_exchange *x, struct hy3_stream *stream,
                             const struct hy3_exchange_source *source,
                             const struct hy3_exchange_way *way, const void *tokens, void *rows)
{
    const struct hy3_permute pack = {.T = source->T,
                                     .R = way->parcels,
                                     .H = x->hidden,
                                     .k = x->top_k,
                                     .dtype = x->dtype,
                                     .token = way->rounds == 1 ? x->memory.token : source->token,
                                     .x = tokens,
                                     .y = rows};

    return x->backend->kernels.permute_forward(stream, &pack);
}

static int64_t received_parcels(const struct hy3_exchange *x,
                                const struct hy3_exchange_round *round)
{
    int64_t last = ranks_of(x) - 1;

    return round->receive_first[last] + round->receive_count[last];
}

int64_t hy3_exchange_places(const struct hy3_exchange *x, const struct hy3_exchange_round *round)
{
    return received_parcels(x, round) * round->way.width;
}

/* Labels of all own parcels. */
static hy3_status label(const struct hy3_exchange *x, struct hy3_stream *stream,
                        const struct hy3_exchange_source *source,
                        const struct hy3_exchange_way *way)
{
    const struct hy3_label labels = {.T = source->T,
                                     .k = x->top_k,
                                     .width = way->width,
                                     .held = held_experts(x),
                                     .sources = ranks_of(x),
                                     .source = x->group->rank,
                                     .ids = source->ids,
                                     .position = source->position,
                                     .starts = source->starts,
                                     .weights = source->weights,
                                     .parcel =
                                         way->rounds == 1 ? x->memory.parcel : source->position,
                                     .labels = x->memory.labels,
                                     .slot = x->memory.slot};

    return x->backend->kernels.label(stream, &labels);
}

/* What the labels that came say. */
static hy3_status unlabel(const struct hy3_exchange *x, struct hy3_stream *stream,
                          const struct hy3_exchange_round *round)
{
    const struct hy3_exchange_memory *m = &x->memory;
    const struct hy3_unlabel order = {.N = received_parcels(x, round),
                                      .R = round->starts[held_experts(x)],
                                      .k = round->way.width,
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

static int64_t row_bytes(const struct hy3_exchange *x)
{
    return x->hidden * (int64_t)hy3_dtype_size(x->dtype);
}

/* Between the parcels that came and the rows of experts. */
static struct hy3_permute copying(const struct hy3_exchange *x,
                                  const struct hy3_exchange_round *round)
{
    return (struct hy3_permute){.T = received_parcels(x, round),
                                .R = round->starts[held_experts(x)],
                                .H = x->hidden,
                                .k = round->way.width,
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
    return (struct hy3_unpermute){.T = received_parcels(x, round),
                                  .R = round->starts[held_experts(x)],
                                  .H = x->hidden,
                                  .k = round->way.width,
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
    bool is_loaded = x->loaded == round->slot;
    struct hy3_permute copy = copying(x, round);
    struct hy3_unpermute weight = weighting(x, round);
    const struct hy3_all_to_all exchange = {
        .parts = {{row_bytes(x), rows, x->memory.arrival},
                  {round->way.width * (int64_t)sizeof *x->memory.labels,
                   is_loaded ? NULL : x->memory.labels, x->memory.came}},
        .send_first = round->send_first,
        .send_count = round->send_count,
        .receive_first = round->receive_first,
        .receive_count = round->receive_count};

    if (!is_loaded)
        HY3_TRY(label(x, stream, source, &round->way));
    HY3_TRY(x->backend->collectives.all_to_all(stream, x->group, &exchange,
                                               "sending tokens to their experts"));
    if (!is_loaded)
        HY3_TRY(unlabel(x, stream, round));
    x->loaded = round->slot;
    copy.y = received;
    weight.dout = x->memory.arrival;
    weight.dy = received;
    return weighted ? x->backend->kernels.unpermute_backward(stream, &weight)
                    : x->backend->kernels.permute_forward(stream, &copy);
}

hy3_status hy3_exchange_return(const struct hy3_exchange *x, struct hy3_stream *stream,
                               const struct hy3_exchange_round *round, const void *received,
                               bool weighted, void *rows)
{
    struct hy3_permute copy = copying(x, round);
    struct hy3_unpermute weight = weighting(x, round);
    const struct hy3_all_to_all exchange = {
        .parts = {{row_bytes(x), x->memory.arrival, rows},
                  {round->way.width * (int64_t)sizeof *x->memory.products,
                   weighted ? NULL : x->memory.came_products, x->memory.products}},
        .send_first = round->receive_first,
        .send_count = round->receive_count,
        .receive_first = round->send_first,
        .receive_count = round->send_count};

    copy.dy = received;
    weight.y = received;
    HY3_TRY(weighted ? x->backend->kernels.unpermute_forward(stream, &weight)
                     : x->backend->kernels.permute_backward(stream, &copy));
    return x->backend->collectives.all_to_all(stream, x->group, &exchange,
                                              "sending tokens back from their experts");
}
