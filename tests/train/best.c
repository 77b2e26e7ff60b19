/* SPDX-License-Identifier: Apache-2.0 */
/* best.c - early stopping and the best metric, against transformers' EarlyStoppingCallback and
 * Trainer (tests/golden/schedules/gen_schedules.py). */
#include "train/best.h"

#include "support/test.h"

#include <math.h>

static void check_series(size_t number, const json_t *series)
{
    const struct hy3_best_rules rules = {
        .greater = json_is_true(json_object_get(series, "greater_is_better")),
        .patience = json_integer_value(json_object_get(series, "patience")),
        .threshold = json_number_value(json_object_get(series, "threshold"))};
    const json_t *rows = json_object_get(series, "rows"),
                 *metrics = json_object_get(series, "metrics");
    struct hy3_state_best best = {0};
    bool stops = false;

    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        bool is_new = hy3_best_note(&best, &rules, (int64_t)i + 1,
                                    json_number_value(json_array_get(metrics, i)));

        stops = stops || hy3_best_ends_run(&best, &rules);
        if (is_new != json_is_true(json_object_get(row, "is_new")) ||
            stops != json_is_true(json_object_get(row, "stops")) ||
            best.metric != json_number_value(json_object_get(row, "best")) ||
            best.step != json_integer_value(json_object_get(row, "best_step")) ||
            best.stale != json_integer_value(json_object_get(row, "stale")))
            fail_msg("series %zu, evaluation %zu: new %d, best %g of %lld, stale %lld", number, i,
                     is_new, best.metric, (long long)best.step, (long long)best.stale);
    }
}

static void evaluations_count_as_in_transformers(void **state)
{
    json_t *golden = hy3_golden_json("schedules/schedules.json"), *series;
    size_t i;

    (void)state;
    assert_true(json_array_size(json_object_get(golden, "stops")) >= 90);
    json_array_foreach(json_object_get(golden, "stops"), i, series) check_series(i, series);
    json_decref(golden);
}

static void a_metric_that_is_not_finite_is_never_the_best(void **state)
{
    const struct hy3_best_rules rules = {.patience = 2};
    struct hy3_state_best best = {0};

    (void)state;
    assert_false(hy3_best_note(&best, &rules, 1, (double)NAN));
    assert_false(hy3_best_ends_run(&best, &rules));
    assert_true(hy3_best_note(&best, &rules, 2, 7));
    assert_false(hy3_best_note(&best, &rules, 3, -(double)INFINITY));
    assert_false(hy3_best_note(&best, &rules, 4, (double)NAN));
    assert_true(hy3_best_ends_run(&best, &rules));
    assert_true(best.step == 2 && best.metric == 7 && best.evaluated == 4);
    hy3_best_note_checkpoint(&best, &rules, 4, (double)NAN);
    assert_int_equal(best.checkpoint, 0);
}

static void the_best_checkpoint_is_the_earliest_of_equal_ones(void **state)
{
    const struct hy3_best_rules low = {0}, high = {.greater = true};
    struct hy3_state_best best = {0};

    (void)state;
    hy3_best_note_checkpoint(&best, &low, 2, 3);
    hy3_best_note_checkpoint(&best, &low, 4, 3);
    assert_int_equal(best.checkpoint, 2);
    hy3_best_note_checkpoint(&best, &low, 6, 2.5);
    assert_int_equal(best.checkpoint, 6);
    hy3_best_note_checkpoint(&best, &high, 8, 2.75);
    assert_true(best.checkpoint == 8 && best.checkpoint_metric == 2.75);
    assert_int_equal(best.step, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(evaluations_count_as_in_transformers),
        cmocka_unit_test(a_metric_that_is_not_finite_is_never_the_best),
        cmocka_unit_test(the_best_checkpoint_is_the_earliest_of_equal_ones),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
