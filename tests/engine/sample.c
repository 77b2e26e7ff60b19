/* SPDX-License-Identifier: Apache-2.0 */
/* sample.c - the choice of a token: the largest logit, or a draw whose frequencies are the
 * softmax's. */
#include "engine/generate.h"
#include "support/test.h"

#include <math.h>

enum { DRAWS = 20000 };

static void at_temperature_zero_the_largest_wins_and_of_two_the_smaller_id(void **state)
{
    const float logits[] = {-1, 2, 5, 5, -INFINITY};

    (void)state;
    for (uint64_t place = 0; place < 10; place++)
        assert_int_equal(hy3_sample_token(logits, 5, 0, 7, place), 2);
}

/* Each frequency within five standard deviations of its probability. */
static void frequencies_are(const float *logits, int V, double temperature)
{
    int drawn[8] = {0};
    double total = 0;

    for (int v = 0; v < V; v++)
        total += exp((double)logits[v] / temperature);
    for (uint64_t place = 0; place < DRAWS; place++)
        drawn[hy3_sample_token(logits, V, temperature, 42, place)]++;
    for (int v = 0; v < V; v++) {
        double p = exp((double)logits[v] / temperature) / total;

        assert_true(fabs(drawn[v] - DRAWS * p) <= 5 * sqrt(DRAWS * p * (1 - p)));
    }
}

static void draws_follow_the_softmax_of_logits_over_temperature(void **state)
{
    const float logits[] = {0.5F, -INFINITY, 1.5F, -0.75F, 0, 1.5F};

    (void)state;
    frequencies_are(logits, 6, 1);
    frequencies_are(logits, 6, 0.5);
    frequencies_are(logits, 6, 3);
}

static void logits_of_any_size_can_be_drawn_from(void **state)
{
    const float far_apart[] = {3e38F, -3e38F, 0}, large[] = {1000, 1000.5F};
    int second = 0;

    (void)state;
    for (uint64_t place = 0; place < 100; place++) {
        assert_int_equal(hy3_sample_token(far_apart, 3, 1, 1, place), 0);
        assert_int_equal(hy3_sample_token(far_apart, 3, 1e-300, 1, place), 0);
        second += hy3_sample_token(large, 2, 1, 1, place);
    }
    assert_in_range(second, 40, 85); /* 62 % of 100 */
}

static void a_draw_depends_on_seed_and_place(void **state)
{
    const float logits[8] = {0};
    int same_seed = 0, same_place = 0;

    (void)state;
    for (uint64_t i = 0; i < 1000; i++) {
        int token = hy3_sample_token(logits, 8, 1, 1, i);

        assert_int_equal(token, hy3_sample_token(logits, 8, 1, 1, i));
        same_seed += token == hy3_sample_token(logits, 8, 1, 1, i + 1);
        same_place += token == hy3_sample_token(logits, 8, 1, 2, i);
    }
    assert_in_range(same_seed, 75, 175); /* one in eight */
    assert_in_range(same_place, 75, 175);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(at_temperature_zero_the_largest_wins_and_of_two_the_smaller_id),
        cmocka_unit_test(draws_follow_the_softmax_of_logits_over_temperature),
        cmocka_unit_test(logits_of_any_size_can_be_drawn_from),
        cmocka_unit_test(a_draw_depends_on_seed_and_place),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
