/* SPDX-License-Identifier: Apache-2.0 */
/* exchange.c - the order of rows in a round, and the two all-to-alls. */
#include "parallel/exchange.h"

#include "base/memory.h"
#include "base/span.h"

/* host_counts: four arrays [P], then starts [E/P+1], then a rank's own counts [E]. */
enum { SEND_FIRST, SEND_COUNT, RECEIVE_FIRST, RECEIVE_COUNT, ARRAYS };

static int64_t *array(const struct hy3_exchange *x, int which)
{
    return x->host_counts + (ptrdiff_t)which * x->group->size;
}

static int64_t held_experts(const struct hy3_exchange *x)
{
    return x->experts / x->group->size;
}

static int64_t *starts_of_received(const struct hy3_exchange *x)
{
    return array(x, ARRAYS);
}

hy3_status hy3_exchange_open(struct hy3_exchange *x)
{
    size_t counts = (size_t)(held_experts(x) + 1 + x->experts) + ARRAYS * (size_t)x->group->size;

    HY3_TRY(hy3_device_host_array(&x->backend->device, 2 * (size_t)x->capacity,
                                  sizeof *x->host_index, &x->host_index));
    return hy3_alloc(&x->host_counts, counts, sizeof *x->host_counts);
}

void hy3_exchange_close(struct hy3_exchange *x)
{
    if (x->host_index)
        x->backend->device.free_host(x->host_index);
    hy3_free(x->host_counts);
    x->host_index = NULL;
    x->host_counts = NULL;
}

void hy3_exchange_count(const struct hy3_exchange *x, const int64_t *starts, int64_t *all)
{
    int64_t *own = starts_of_received(x) + held_experts(x) + 1;

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
static void arrange_sending(const struct hy3_exchange *x, const int64_t *all, int64_t round)
{
    int64_t *first = array(x, SEND_FIRST), *count = array(x, SEND_COUNT), row = 0;

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
static void arrange_receiving(const struct hy3_exchange *x, const int64_t *all, int64_t round)
{
    int64_t *first = array(x, RECEIVE_FIRST), *count = array(x, RECEIVE_COUNT);
    int64_t *starts = starts_of_received(x), held = held_experts(x), from;
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

/* From order of arrival to order of experts: token[sorted row] = arrived row, position its
 * inverse. */
static void arrange_order(const struct hy3_exchange *x, const int64_t *all, int64_t round)
{
    int64_t *next = array(x, RECEIVE_FIRST), held = held_experts(x), sorted = 0, from;
    int32_t *token = x->host_index, *position = x->host_index + x->capacity;
    struct window w = window_of(x, round);

    for (int64_t e = 0; e < held; e++) {
        for (int64_t p = 0; p < x->group->size; p++) {
            int64_t n = take(&w, all[p * x->experts + x->group->rank * held + e], &from);

            for (int64_t i = 0; i < n; i++, sorted++, next[p]++) {
                token[sorted] = (int32_t)next[p];
                position[next[p]] = (int32_t)sorted;
            }
        }
    }
    for (int p = 0; p < x->group->size; p++) /* back to where each began */
        next[p] -= array(x, RECEIVE_COUNT)[p];
}

hy3_status hy3_exchange_plan(struct hy3_exchange *x, struct hy3_stream *stream, const int64_t *all,
                             int64_t round, struct hy3_exchange_round *out)
{
    const struct hy3_device *device = &x->backend->device;
    size_t bytes;

    arrange_sending(x, all, round);
    arrange_receiving(x, all, round);
    arrange_order(x, all, round);
    *out = (struct hy3_exchange_round){.send_first = array(x, SEND_FIRST),
                                       .send_count = array(x, SEND_COUNT),
                                       .receive_first = array(x, RECEIVE_FIRST),
                                       .receive_count = array(x, RECEIVE_COUNT),
                                       .starts = starts_of_received(x)};
    bytes = (size_t)out->starts[held_experts(x)] * sizeof(int32_t);
    HY3_TRY(device->copy(stream, x->token, x->host_index, bytes));
    HY3_TRY(device->copy(stream, x->position, x->host_index + x->capacity, bytes));
    HY3_TRY(device->synchronize(stream)); /* the next round writes the host's arrays */
    return HY3_OK;
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
