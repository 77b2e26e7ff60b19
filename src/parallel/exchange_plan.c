/* SPDX-License-Identifier: Apache-2.0 */
/* exchange_plan.c - from counts that all ranks know to what each sends, and where rows lie. */
#include "base/span.h"
#include "parallel/exchange.h"

/* A slot of `host`: two legs of four arrays [P], then starts [E/P+1], then first [E]. After the
 * slots: `own` [P+1], [nodes+1], then a rank's own counts. */
enum { SEND_FIRST, SEND_COUNT, RECEIVE_FIRST, RECEIVE_COUNT, ARRAYS };

enum { TO_RANK, TO_NODE = ARRAYS, ALL_ARRAYS = 2 * ARRAYS };

static int64_t ranks_of(const struct hy3_exchange *x)
{
    return x->group->size;
}

static int64_t nodes_of(const struct hy3_exchange *x)
{
    return x->across ? x->across->size : 0;
}

static int64_t slot_size(const struct hy3_exchange *x)
{
    return ALL_ARRAYS * ranks_of(x) + hy3_exchange_held(x) + 1 + x->experts;
}

static int64_t *array(const struct hy3_exchange *x, int slot, int which)
{
    return x->host + slot * slot_size(x) + (ptrdiff_t)which * x->group->size;
}

static int64_t *starts_of_received(const struct hy3_exchange *x, int slot)
{
    return array(x, slot, ALL_ARRAYS);
}

static int64_t *first_of_blocks(const struct hy3_exchange *x, int slot)
{
    return starts_of_received(x, slot) + hy3_exchange_held(x) + 1;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static void take_relay(const struct hy3_exchange *x, bool backward, struct hy3_arena *arena,
                       struct hy3_relay *r)
{
    const size_t index = sizeof(int32_t);
    int64_t came = x->capacity * hy3_exchange_width(x, hy3_exchange_of_node(x));
    int64_t sent = x->capacity * hy3_exchange_width(x, hy3_exchange_held(x));

    r->came = hy3_arena_take(arena, came, sizeof *r->came);
    r->parcel = hy3_arena_take(arena, came, index);
    r->slot = hy3_arena_take(arena, came, index);
    r->token = hy3_arena_take(arena, x->capacity, index);
    r->starts = hy3_arena_take(arena, x->near->size + 1, sizeof *r->starts);
    r->labels = hy3_arena_take(arena, sent, sizeof *r->labels);
    r->products = backward ? hy3_arena_take(arena, sent, sizeof *r->products) : NULL;
    r->came_products = backward ? hy3_arena_take(arena, came, sizeof *r->came_products) : NULL;
}

void hy3_exchange_take(const struct hy3_exchange *x, int64_t T, bool backward,
                       struct hy3_arena *arena, struct hy3_exchange_memory *m)
{
    const size_t index = sizeof(int32_t);
    int64_t R = T * x->top_k, parcels = T * smaller(x->top_k, ranks_of(x));
    int64_t width = hy3_exchange_width(x, hy3_exchange_held(x)), came = x->capacity * width;
    int64_t over_nodes =
        T * smaller(x->top_k, nodes_of(x)) * hy3_exchange_width(x, hy3_exchange_of_node(x));
    int64_t sent = larger(larger(R, parcels * width), over_nodes);

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
    if (x->near)
        take_relay(x, backward, arena, &m->relay);
}

hy3_status hy3_exchange_open(struct hy3_exchange *x)
{
    int64_t slots = x->slots * slot_size(x), own = ranks_of(x) + nodes_of(x) + 2;

    x->loaded = -1;
    HY3_TRY(hy3_device_host_array(&x->backend->device,
                                  (size_t)(slots + own + hy3_exchange_counts(x)), sizeof *x->host,
                                  &x->host));
    x->own = x->host + slots;
    return HY3_OK;
}

void hy3_exchange_close(struct hy3_exchange *x)
{
    if (x->host)
        x->backend->device.free_host(x->host);
    x->host = NULL;
}

void hy3_exchange_count(const struct hy3_exchange *x, const int64_t *starts, int64_t *all)
{
    const int64_t *to_node = x->own + ranks_of(x) + 1;
    int64_t *own = x->own + ranks_of(x) + nodes_of(x) + 2, *at = own;

    for (int64_t e = 0; e < x->experts; e++)
        *at++ = starts[e + 1] - starts[e];
    for (int64_t d = 0; d < ranks_of(x); d++)
        *at++ = x->own[d + 1] - x->own[d];
    for (int64_t n = 0; n < nodes_of(x); n++)
        *at++ = to_node[n + 1] - to_node[n];
    hy3_group_allgather(x->group, own, (int)hy3_exchange_counts(x), all,
                        "counting the experts' rows");
}

/* Rows that rank p has for expert e. */
static int64_t rows_of(const struct hy3_exchange *x, const int64_t *all, int64_t p, int64_t e)
{
    return all[p * hy3_exchange_counts(x) + e];
}

/* Parcels that rank p has for rank d. */
static int64_t parcels_of(const struct hy3_exchange *x, const int64_t *all, int64_t p, int64_t d)
{
    return all[p * hy3_exchange_counts(x) + x->experts + d];
}

/* Parcels that rank p has for node n. */
static int64_t node_parcels_of(const struct hy3_exchange *x, const int64_t *all, int64_t p,
                               int64_t n)
{
    return all[p * hy3_exchange_counts(x) + x->experts + ranks_of(x) + n];
}

/* Parcels that rank r passes on to rank d of its node: from the ranks with its place in theirs. */
static int64_t passed_of(const struct hy3_exchange *x, const int64_t *all, int64_t r, int64_t d)
{
    int64_t sum = 0;

    for (int64_t p = r % x->near->size; p < ranks_of(x); p += x->near->size)
        sum += parcels_of(x, all, p, d);
    return sum;
}

/* Whether what a rank of the group would pass on, before and after, fits its workspace. */
static bool can_be_relayed(const struct hy3_exchange *x, const int64_t *all)
{
    for (int64_t r = 0; x->near && r < ranks_of(x); r++) {
        int64_t node = r / x->near->size, came = 0, sent = 0;

        for (int64_t p = r % x->near->size; p < ranks_of(x); p += x->near->size)
            came += node_parcels_of(x, all, p, node);
        for (int64_t m = 0; m < x->near->size; m++)
            sent += passed_of(x, all, r, node * x->near->size + m);
        if (larger(came, sent) > x->capacity)
            return false;
    }
    return x->near != NULL;
}

struct hy3_exchange_way hy3_exchange_way(const struct hy3_exchange *x, const int64_t *all)
{
    struct hy3_exchange_way way = {.rounds = 1};
    int64_t held = hy3_exchange_held(x), own = 0, parcels = 0, node_parcels = 0;

    for (int64_t d = 0; d < ranks_of(x); d++) {
        int64_t rows = 0;

        for (int64_t e = d * held; e < (d + 1) * held; e++) {
            for (int64_t p = 0; p < ranks_of(x); p++)
                rows += rows_of(x, all, p, e);
            own += rows_of(x, all, x->group->rank, e);
        }
        way.most = larger(way.most, rows);
        parcels += parcels_of(x, all, x->group->rank, d);
    }
    for (int64_t n = 0; n < nodes_of(x); n++)
        node_parcels += node_parcels_of(x, all, x->group->rank, n);
    if (way.most > x->capacity)
        way.rounds = (way.most + x->capacity - 1) / x->capacity;
    way.relayed = way.rounds == 1 && can_be_relayed(x, all);
    way.parcels = way.rounds > 1 ? own : way.relayed ? node_parcels : parcels;
    way.width = hy3_exchange_width(x, way.rounds > 1 ? 1
                                      : way.relayed  ? hy3_exchange_of_node(x)
                                                     : held);
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
        for (int64_t e = d * hy3_exchange_held(x); e < (d + 1) * hy3_exchange_held(x); e++) {
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
    int64_t *first = first_of_blocks(x, slot), held = hy3_exchange_held(x), ranks = ranks_of(x);
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
    int64_t *send = array(x, slot, TO_RANK + SEND_COUNT), me = x->group->rank;
    int64_t *receive = array(x, slot, TO_RANK + RECEIVE_COUNT);

    for (int64_t d = 0; d < ranks_of(x); d++) {
        send[d] = parcels_of(x, all, me, d);
        receive[d] = parcels_of(x, all, d, me);
    }
}

/* The same by way of a rank of each node. */
static void arrange_relay(const struct hy3_exchange *x, const int64_t *all, int slot)
{
    int64_t *send = array(x, slot, TO_RANK + SEND_COUNT), me = x->group->rank;
    int64_t *receive = array(x, slot, TO_RANK + RECEIVE_COUNT), node = me - me % x->near->size;

    for (int64_t m = 0; m < x->near->size; m++) {
        send[m] = passed_of(x, all, me, node + m);
        receive[m] = passed_of(x, all, node + m, me);
    }
    send = array(x, slot, TO_NODE + SEND_COUNT);
    receive = array(x, slot, TO_NODE + RECEIVE_COUNT);
    for (int64_t n = 0; n < nodes_of(x); n++) {
        send[n] = node_parcels_of(x, all, me, n);
        receive[n] =
            node_parcels_of(x, all, n * x->near->size + me % x->near->size, node / x->near->size);
    }
}

static struct hy3_exchange_leg leg(const struct hy3_exchange *x, int slot, int which,
                                   const struct hy3_group *group)
{
    return (struct hy3_exchange_leg){.group = group,
                                     .send_first = array(x, slot, which + SEND_FIRST),
                                     .send_count = array(x, slot, which + SEND_COUNT),
                                     .receive_first = array(x, slot, which + RECEIVE_FIRST),
                                     .receive_count = array(x, slot, which + RECEIVE_COUNT)};
}

struct hy3_exchange_round hy3_exchange_planned(const struct hy3_exchange *x, const int64_t *all,
                                               int slot)
{
    struct hy3_exchange_way way = hy3_exchange_way(x, all);

    return (struct hy3_exchange_round){.slot = slot,
                                       .way = way,
                                       .to_node = leg(x, slot, TO_NODE, x->across),
                                       .to_rank =
                                           leg(x, slot, TO_RANK, way.relayed ? x->near : x->group),
                                       .starts = starts_of_received(x, slot),
                                       .first = first_of_blocks(x, slot)};
}

/* Where those of each rank begin, one rank after the other. */
static void add_up(const struct hy3_exchange *x, int slot, int counts, int firsts)
{
    const int64_t *count = array(x, slot, counts);
    int64_t *first = array(x, slot, firsts);

    first[0] = 0;
    for (int p = 1; p < x->group->size; p++)
        first[p] = first[p - 1] + count[p - 1];
}

void hy3_exchange_plan(struct hy3_exchange *x, const int64_t *all, int slot, int64_t round,
                       struct hy3_exchange_round *out)
{
    *out = hy3_exchange_planned(x, all, slot);
    arrange_rows(x, all, slot, round);
    if (out->way.rounds > 1)
        arrange_sending(x, all, slot, round);
    else if (out->way.relayed)
        arrange_relay(x, all, slot);
    else
        arrange_parcels(x, all, slot);
    if (out->way.rounds == 1)
        add_up(x, slot, TO_RANK + SEND_COUNT, TO_RANK + SEND_FIRST);
    add_up(x, slot, TO_RANK + RECEIVE_COUNT, TO_RANK + RECEIVE_FIRST);
    add_up(x, slot, TO_NODE + SEND_COUNT, TO_NODE + SEND_FIRST);
    add_up(x, slot, TO_NODE + RECEIVE_COUNT, TO_NODE + RECEIVE_FIRST);
    x->loaded = -1;
}
