/* SPDX-License-Identifier: Apache-2.0 */
/* schedule.c - learning rates against transformers' tables. */
#include "optim/schedule.h"

#include "support/golden.h"

#include <math.h>

static enum hy3_schedule_type type_of(const char *name)
{
    static const char *const names[] = {"cosine_with_min_lr", "cosine", "linear", "constant",
                                        "constant_with_warmup"};

    for (int i = 0; i < 5; i++)
        if (strcmp(name, names[i]) == 0)
            return (enum hy3_schedule_type)i;
    fail_msg("schedule %s", name);
    return HY3_COSINE;
}

static void rates_equal_the_tables(void **state)
{
    json_t *golden = hy3_golden_json("a/lr_schedules.json"), *table, *value;
    size_t i, j;

    (void)state;
    assert_true(json_array_size(json_object_get(golden, "tables")) >= 35);
    json_array_foreach(json_object_get(golden, "tables"), i, table)
    {
        struct hy3_schedule s = {
            .type = type_of(json_string_value(json_object_get(table, "type"))),
            .peak = json_number_value(json_object_get(table, "learning_rate")),
            .min_rate = json_number_value(json_object_get(table, "min_lr_rate")),
            .warmup = json_integer_value(json_object_get(table, "warmup_steps")),
            .total_steps = json_integer_value(json_object_get(table, "total_steps")),
        };

        json_array_foreach(json_object_get(table, "lr"), j, value) hy3_assert_within(
            "rate", fabs(hy3_schedule_rate(&s, (int64_t)j) - json_number_value(value)),
            1e-15 * s.peak);
    }
    json_decref(golden);
}

static void warmup_of_a_ratio_rounds_up(void **state)
{
    json_t *golden = hy3_golden_json("a/lr_schedules.json"), *row;
    size_t i;

    (void)state;
    json_array_foreach(json_object_get(golden, "warmup_from_ratio"), i, row) assert_int_equal(
        hy3_schedule_warmup(json_number_value(json_object_get(row, "warmup_ratio")),
                            json_integer_value(json_object_get(row, "total_steps"))),
        json_integer_value(json_object_get(row, "warmup_steps")));
    json_decref(golden);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rates_equal_the_tables),
        cmocka_unit_test(warmup_of_a_ratio_rounds_up),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
