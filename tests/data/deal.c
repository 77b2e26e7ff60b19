/* SPDX-License-Identifier: Apache-2.0 */
/* deal.c - every place goes to one rank, as many to each, and the slowest rank is nearly a mean
 * one. */
#include "data/deal.h"

#include "base/memory.h"
#include "base/random.h"
#include "support/test.h"

static void draw(struct hy3_deal *deal, int64_t places, uint64_t seed)
{
    for (int64_t i = 0; i < places; i++) {
        uint32_t words[4];
        double u;

        hy3_random(seed, HY3_RANDOM_DUMMY, 0, (uint64_t)i, words);
        u = hy3_random_uniform(words[0]);
        deal->costs[i] = 1 + (int64_t)(1e6 * u * u * u);
    }
}

/* The slowest rank of each micro-batch, summed, with the places as they stand in deal->order. */
static double slowest(const struct hy3_deal *d)
{
    double sum = 0;

    for (int64_t micro = 0; micro * d->batch * d->ranks < d->places; micro++) {
        double worst = 0;

        for (int64_t rank = 0; rank < d->ranks; rank++) {
            double cost = 0;
            int64_t first, end;

            hy3_deal_find(d, micro, rank, &first, &end);
            for (int64_t i = first; i < end; i++)
                cost += (double)d->costs[d->order[i]];
            worst = cost > worst ? cost : worst;
        }
        sum += worst;
    }
    return sum;
}

static void check(int64_t batch, int64_t accumulation, int64_t ranks, int64_t places)
{
    struct hy3_deal d;
    char *seen;
    int64_t at = 0;

    assert_ok(hy3_deal_create(batch * accumulation * ranks, batch, ranks, &d));
    assert_ok(hy3_alloc(&seen, (size_t)places + 1, 1));
    draw(&d, places, (uint64_t)(batch + ranks));
    hy3_deal_make(&d, places, false);
    for (int64_t i = 0; i < places; i++)
        assert_int_equal(seen[d.order[i]]++, 0);
    for (int64_t micro = 0; micro < accumulation; micro++) {
        for (int64_t rank = 0; rank < ranks; rank++) {
            int64_t first, end;

            hy3_deal_find(&d, micro, rank, &first, &end);
            assert_int_equal(first, at);
            assert_true(end - first <= batch);
            if (places - micro * batch * ranks >= batch * ranks)
                assert_int_equal(end - first, batch);
            for (int64_t i = first + 1; i < end; i++) /* sums in the order of the samples */
                assert_true(d.order[i] > d.order[i - 1]);
            at = end;
        }
    }
    assert_int_equal(at, places);
    assert_true(d.dealt == slowest(&d));
    assert_true(d.dealt <= d.in_order && d.dealt >= d.mean * (1 - 1e-12));
    hy3_free(seen);
    hy3_deal_free(&d);
}

static void every_place_goes_to_one_rank_and_all_take_as_many(void **state)
{
    (void)state;
    for (int64_t batch = 1; batch <= 4; batch++)
        for (int64_t accumulation = 1; accumulation <= 3; accumulation++)
            for (int64_t ranks = 1; ranks <= 5; ranks++)
                for (int64_t places = 1; places <= batch * accumulation * ranks; places++)
                    check(batch, accumulation, ranks, places);
}

/* The least sum of all ways to deal the places from `at` on. */
static double best(struct hy3_deal *d, int64_t at)
{
    double least = at == d->places ? slowest(d) : 1e300;

    for (int64_t i = at; i < d->places; i++) {
        int64_t kept = d->order[at];
        double here;

        d->order[at] = d->order[i];
        d->order[i] = kept;
        here = best(d, at + 1);
        least = here < least ? here : least;
        d->order[i] = d->order[at];
        d->order[at] = kept;
    }
    return least;
}

static void no_other_way_is_much_faster(void **state)
{
    static const int64_t ways[][3] = {{1, 2, 3}, {2, 2, 2}, {1, 4, 2}, {2, 1, 3}, {3, 1, 2}};
    double worst = 0;

    (void)state;
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        const int64_t *way = ways[w], places = way[0] * way[1] * way[2];
        struct hy3_deal d;

        assert_ok(hy3_deal_create(places, way[0], way[2], &d));
        for (uint64_t seed = 0; seed < 3; seed++) {
            double least, dealt;

            draw(&d, places, seed);
            hy3_deal_make(&d, places, false);
            dealt = d.dealt;
            least = best(&d, 0);
            assert_true(dealt >= least * (1 - 1e-12));
            if (way[0] == 1) /* longest with longest is best */
                assert_true(dealt <= least * (1 + 1e-12));
            worst = dealt / least > worst ? dealt / least : worst;
        }
        hy3_deal_free(&d);
    }
    assert_true(worst < 1.05);
}

static void uneven_samples_are_dealt_evenly(void **state)
{
    struct hy3_deal d;

    (void)state;
    assert_ok(hy3_deal_create(256, 2, 8, &d));
    draw(&d, 256, 1);
    hy3_deal_make(&d, 256, false);
    assert_true(d.in_order > 1.8 * d.mean);
    assert_true(d.dealt < 1.05 * d.mean);
    hy3_deal_make(&d, 256, true);
    assert_true(d.dealt == d.in_order);
    hy3_deal_free(&d);
}

static void where_nothing_is_gained_the_order_stays(void **state)
{
    struct hy3_deal d;

    (void)state;
    assert_ok(hy3_deal_create(24, 2, 3, &d));
    for (int i = 0; i < 24; i++)
        d.costs[i] = 7;
    hy3_deal_make(&d, 24, false);
    for (int i = 0; i < 24; i++)
        assert_int_equal(d.order[i], i);
    hy3_deal_free(&d);
    assert_ok(hy3_deal_create(24, 4, 1, &d)); /* one rank waits for nobody */
    draw(&d, 24, 2);
    hy3_deal_make(&d, 24, false);
    for (int i = 0; i < 24; i++)
        assert_int_equal(d.order[i], i);
    hy3_deal_free(&d);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_place_goes_to_one_rank_and_all_take_as_many),
        cmocka_unit_test(no_other_way_is_much_faster),
        cmocka_unit_test(uneven_samples_are_dealt_evenly),
        cmocka_unit_test(where_nothing_is_gained_the_order_stays),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
