/* SPDX-License-Identifier: Apache-2.0 */
/* deal.c - samples by falling cost, each to the rank that has least to do. */
#include "data/deal.h"

#include "base/memory.h"

struct hy3_deal_item {
    int64_t cost, place;
    int64_t share; /* of its micro-batch */
};

struct hy3_deal_share { /* what a rank gets of a micro-batch */
    int64_t cost, count, rank;
};

hy3_status hy3_deal_create(int64_t places, int64_t batch, int64_t ranks, struct hy3_deal *deal)
{
    *deal = (struct hy3_deal){.batch = batch, .ranks = ranks, .capacity = places};
    HY3_TRY(hy3_alloc(&deal->order, (size_t)places, sizeof *deal->order));
    HY3_TRY(hy3_alloc(&deal->costs, (size_t)places, sizeof *deal->costs));
    if (ranks == 1) /* nobody waits */
        return HY3_OK;
    HY3_TRY(hy3_alloc(&deal->items, (size_t)places, sizeof *deal->items));
    return hy3_alloc(&deal->shares, (size_t)ranks, sizeof *deal->shares);
}

void hy3_deal_free(struct hy3_deal *deal)
{
    hy3_free(deal->order);
    hy3_free(deal->costs);
    hy3_free(deal->items);
    hy3_free(deal->shares);
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

void hy3_deal_find(const struct hy3_deal *deal, int64_t micro, int64_t rank, int64_t *first,
                   int64_t *end)
{
    const int64_t full = deal->batch * deal->ranks, left = deal->places / full;
    int64_t here = micro < left ? full : micro == left ? deal->places % full : 0;
    int64_t each = here / deal->ranks, more = here % deal->ranks;

    *first = smaller(micro * full, deal->places) + rank * each + smaller(rank, more);
    *end = *first + each + (rank < more);
}

static int64_t micros(const struct hy3_deal *deal)
{
    const int64_t full = deal->batch * deal->ranks;

    return deal->places / full + (deal->places % full != 0);
}

/* The sum over the micro-batches of the slowest rank's cost. */
static double slowest(const struct hy3_deal *deal)
{
    double sum = 0;

    for (int64_t micro = 0; micro < micros(deal); micro++) {
        int64_t worst = 0;

        for (int64_t rank = 0; rank < deal->ranks; rank++) {
            int64_t first, end, cost = 0;

            hy3_deal_find(deal, micro, rank, &first, &end);
            for (int64_t i = first; i < end; i++)
                cost += deal->costs[deal->order[i]];
            worst = cost > worst ? cost : worst;
        }
        sum += (double)worst;
    }
    return sum;
}

/* By falling cost. */
static int by_cost(const void *a, const void *b)
{
    const struct hy3_deal_item *x = a, *y = b;

    if (x->cost != y->cost)
        return x->cost < y->cost ? 1 : -1;
    return (x->place > y->place) - (x->place < y->place);
}

static int by_share(const void *a, const void *b)
{
    const struct hy3_deal_item *x = a, *y = b;

    if (x->share != y->share)
        return x->share < y->share ? -1 : 1;
    return (x->place > y->place) - (x->place < y->place);
}

/* By rising cost. */
static int by_load(const void *a, const void *b)
{
    const struct hy3_deal_share *x = a, *y = b;

    if (x->cost != y->cost)
        return x->cost < y->cost ? -1 : 1;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

/* The shares that got more come first, as hy3_deal_find has it. */
static int by_count(const void *a, const void *b)
{
    const struct hy3_deal_share *x = a, *y = b;

    if (x->count != y->count)
        return x->count < y->count ? 1 : -1;
    return (x->rank > y->rank) - (x->rank < y->rank);
}

/* Deals one micro-batch: `count` items, by falling cost. */
static void deal_micro(struct hy3_deal *deal, struct hy3_deal_item *items, int64_t count,
                       int64_t *order)
{
    struct hy3_deal_share *shares = deal->shares;
    const int64_t ranks = deal->ranks;

    for (int64_t r = 0; r < ranks; r++)
        shares[r] = (struct hy3_deal_share){.rank = r};
    for (int64_t first = 0; first < count; first += ranks) {
        qsort(shares, (size_t)ranks, sizeof *shares, by_load);
        for (int64_t i = first; i < smaller(first + ranks, count); i++) {
            shares[i - first].cost += items[i].cost;
            shares[i - first].count++;
            items[i].share = shares[i - first].rank;
        }
    }
    qsort(shares, (size_t)ranks, sizeof *shares, by_count);
    for (int64_t r = 0; r < ranks; r++) /* from now on: where a share stands */
        shares[shares[r].rank].cost = r;
    for (int64_t i = 0; i < count; i++)
        items[i].share = shares[items[i].share].cost;
    qsort(items, (size_t)count, sizeof *items, by_share);
    for (int64_t i = 0; i < count; i++)
        order[i] = items[i].place;
}

static void keep_order(struct hy3_deal *deal)
{
    for (int64_t i = 0; i < deal->places; i++)
        deal->order[i] = i;
}

void hy3_deal_make(struct hy3_deal *deal, int64_t places, bool keeps_order)
{
    const int64_t full = deal->batch * deal->ranks;

    HY3_ASSERT(places <= deal->capacity);
    deal->places = places;
    deal->mean = 0;
    for (int64_t i = 0; i < places; i++)
        deal->mean += (double)deal->costs[i] / (double)deal->ranks;
    keep_order(deal);
    deal->in_order = deal->dealt = slowest(deal);
    if (keeps_order || deal->ranks == 1)
        return;
    for (int64_t i = 0; i < places; i++)
        deal->items[i] = (struct hy3_deal_item){.cost = deal->costs[i], .place = i};
    qsort(deal->items, (size_t)places, sizeof *deal->items, by_cost);
    for (int64_t first = 0; first < places; first += full)
        deal_micro(deal, deal->items + first, smaller(full, places - first), deal->order + first);
    deal->dealt = slowest(deal);
    if (deal->dealt < deal->in_order)
        return;
    deal->dealt = deal->in_order;
    keep_order(deal);
}
