/* SPDX-License-Identifier: Apache-2.0 */
/* exchange.c - the order of rows in a round, and the two all-to-alls. */
#include "parallel/exchange.h"

#include "base/span.h"

/* A slot of `host`: four arrays [P], then starts [E/P+1], then blocks [3,E]. After the slots: a
 * rank's own counts [E]. */
enum { SEND_FIRST, SEND_COUNT, RECEIVE_FIRST, RECEIVE_COUNT, ARRAYS };

static int64_t held_experts(const struct hy3_exchange *x)
{
    return x->experts / x->group->size;
}

static int64_t slot_size(const struct hy3_exchange *x)
{
    const int64_t ranks = x->group->size;

    return ARRAYS * ranks + held_experts(x) + 1 + 3 * x->experts;
}

static int64_t *array(const struct hy3_exchange *x, int slot, int which)
{
    return x->host + slot * slot_size(x) + (ptrdiff_t)which * x->group->size;
}

static int64_t *starts_of_received(const struct hy3_exchange *x, int slot)
{
    return array(x, slot, ARRAYS);
}

static int64_t *blocks_of(const struct hy3_exchange *x, int slot)
{
    return starts_of_received(x, slot) + held_experts(x) + 1;
}

hy3_status hy3_exchange_open(struct hy3_exchange *x)
{
    x->loaded = -1;
    return hy3_device_host_array(&x->backend->device,
                                 (size_t)(x->slots * slot_size(x) + x->experts), sizeof *x->host,
                                 &x->host);
}

void hy3_exchange_close(struct hy3_exchange *x)
{
    if (x->host)
        x->backend->device.free_host(x->host);
    x->host = NULL;
}

void hy3_exchange_count(const struct hy3_exchange *x, const int64_t *starts, int64_t *all)
{
    int64_t *own = x->host + x->slots * slot_size(x);

    for (int64_t e = 0; e < x->experts; e++)
        own[e] = starts[e + 1] - starts[e];
    hy3_group_allgather(x->group, own, (int)x->experts, all, "counting the experts' rows");
}

int64_t hy3_exchange_rounds(const struct hy3_exchange *x, const int64_t *all, int64_t *most)
{
    *most = 0;
    for (int64_t d = 0; d < x->group->size; d++) {
        int64_t rows = 0;

        for (int64_t e = d * held_experts(x); e < (d + 1) * held_experts(x); e++)
            for (int64_t p = 0; p < x->group->size; p++)
                rows += all[p * x->experts + e];
        *most = rows > *most ? rows : *most;
    }
    return *most > x->capacity ? (*most + x->capacity - 1) / x->capacity : 1;
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

    for (int64_t d = 0; d < x->group->size; d++) {
        struct window w = window_of(x, round);

        first[d] = row;
        count[d] = 0;
        for (int64_t e = d * held_experts(x); e < (d + 1) * held_experts(x); e++) {
            for (int64_t p = 0; p < x->group->size; p++) {
                int64_t from, n = take(&w, all[p * x->experts + e], &from);

                if (p != x->group->rank)
                    continue;
                if (n > 0 && count[d] == 0)
                    first[d] = row + from;
                count[d] += n;
                row += all[p * x->experts + e];
            }
        }
    }
}

/* How many rows come from each rank, and the rows of each held expert. */
static void arrange_receiving(const struct hy3_exchange *x, const int64_t *all, int slot,
                              int64_t round)
{
    int64_t *first = array(x, slot, RECEIVE_FIRST), *count = array(x, slot, RECEIVE_COUNT);
    int64_t *starts = starts_of_received(x, slot), held = held_experts(x), from;
    struct window w = window_of(x, round);

    memset(count, 0, (size_t)x->group->size * sizeof *count);
    starts[0] = 0;
    for (int64_t e = 0; e < held; e++) {
        starts[e + 1] = starts[e];
        for (int64_t p = 0; p < x->group->size; p++) {
            int64_t n = take(&w, all[p * x->experts + x->group->rank * held + e], &from);

            count[p] += n;
            starts[e + 1] += n;
        }
    }
    first[0] = 0;
    for (int p = 1; p < x->group->size; p++)
        first[p] = first[p - 1] + count[p - 1];
}

/* The rows of each held expert from each rank, where they arrive and where they are sorted. */
static void arrange_order(const struct hy3_exchange *x, const int64_t *all, int slot, int64_t round)
{
    const int64_t *first = array(x, slot, RECEIVE_FIRST);
    int64_t *arrived = blocks_of(x, slot), *sorted = arrived + x->experts;
    int64_t *count = sorted + x->experts, ranks = x->group->size, held = held_experts(x), at = 0;
    struct window w = window_of(x, round);

    for (int64_t b = 0; b < x->experts; b++) { /* E/P experts times P ranks */
        int64_t e = b / ranks, p = b % ranks, from;

        count[b] = take(&w, all[p * x->experts + x->group->rank * held + e], &from);
        sorted[b] = at;
        arrived[b] = e == 0 ? first[p] : arrived[b - ranks] + count[b - ranks];
        at += count[b];
    }
}

struct hy3_exchange_round hy3_exchange_planned(const struct hy3_exchange *x, int slot)
{
    return (struct hy3_exchange_round){.slot = slot,
                                       .send_first = array(x, slot, SEND_FIRST),
                                       .send_count = array(x, slot, SEND_COUNT),
                                       .receive_first = array(x, slot, RECEIVE_FIRST),
                                       .receive_count = array(x, slot, RECEIVE_COUNT),
                                       .starts = starts_of_received(x, slot),
                                       .blocks = blocks_of(x, slot)};
}

void hy3_exchange_plan(struct hy3_exchange *x, const int64_t *all, int slot, int64_t round,
                       struct hy3_exchange_round *out)
{
    arrange_sending(x, all, slot, round);
    arrange_receiving(x, all, slot, round);
    arrange_order(x, all, slot, round);
    x->loaded = -1;
    *out = hy3_exchange_planned(x, slot);
}

hy3_status hy3_exchange_load(struct hy3_exchange *x, struct hy3_stream *stream,
                             const struct hy3_exchange_round *round)
{
    const struct hy3_block_order order = {.n = round->starts[held_experts(x)],
                                          .blocks = x->experts,
                                          .table = x->blocks,
                                          .token = x->token,
                                          .position = x->position};

    if (x->loaded == round->slot)
        return HY3_OK;
    x->loaded = round->slot;
    HY3_TRY(x->backend->device.copy(stream, x->blocks, round->blocks,
                                    3 * (size_t)x->experts * sizeof *x->blocks));
    return x->backend->kernels.block_order(stream, &order);
}

/* The received rows between their two orders. */
static struct hy3_permute reorder(const struct hy3_exchange *x,
                                  const struct hy3_exchange_round *round)
{
    int64_t rows = round->starts[held_experts(x)];

    return (struct hy3_permute){.T = rows,
                                .R = rows,
                                .H = x->hidden,
                                .k = 1,
                                .dtype = x->dtype,
                                .token = x->token,
                                .position = x->position};
}

static int64_t row_bytes(const struct hy3_exchange *x)
{
    return x->hidden * (int64_t)hy3_dtype_size(x->dtype);
}

hy3_status hy3_exchange_dispatch(const struct hy3_exchange *x, struct hy3_stream *stream,
                                 const struct hy3_exchange_round *round, const void *rows,
                                 void *received)
{
    struct hy3_permute sort = reorder(x, round);
    const struct hy3_all_to_all exchange = {.parts = {{row_bytes(x), rows, x->arrival}},
                                            .send_first = round->send_first,
                                            .send_count = round->send_count,
                                            .receive_first = round->receive_first,
                                            .receive_count = round->receive_count};

    HY3_TRY(x->backend->collectives.all_to_all(stream, x->group, &exchange,
                                               "sending tokens to their experts"));
    sort.x = x->arrival;
    sort.y = received;
    return x->backend->kernels.permute_forward(stream, &sort);
}

hy3_status hy3_exchange_return(const struct hy3_exchange *x, struct hy3_stream *stream,
                               const struct hy3_exchange_round *round,
                               const struct hy3_returned *returned)
{
    struct hy3_permute sort = reorder(x, round);
    const struct hy3_all_to_all exchange = {
        .parts = {{row_bytes(x), x->arrival, returned->rows},
                  {sizeof *returned->products, returned->received_products, returned->products}},
        .send_first = round->receive_first,
        .send_count = round->receive_count,
        .receive_first = round->send_first,
        .receive_count = round->send_count};

    sort.dy = returned->received;
    sort.dx = x->arrival;
    HY3_TRY(x->backend->kernels.permute_backward(stream, &sort));
    return x->backend->collectives.all_to_all(stream, x->group, &exchange,
                                              "sending tokens back from their experts");
}
