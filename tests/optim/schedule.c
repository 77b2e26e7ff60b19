/* SPDX-License-Identifier: Apache-2.0 */
/* schedule.c - learning rates against transformers' tables. */
#include "optim/schedule.h"

#include "support/golden.h"

#include <math.h>

static enum hy3_schedule_type type_of(const char *name)
{
    static const char *const names[] = {"cosine_with_min_lr",
                                        "cosine",
                                        "linear",
                                        "constant",
                                        "constant_with_warmup",
                                        "cosine_with_restarts",
                                        "polynomial",
                                        "inverse_sqrt",
                                        "warmup_stable_decay",
                                        "cosine_warmup_with_min_lr"};

    for (int i = 0; i < 10; i++)
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
            .cycles = 0.5,
        };

        json_array_foreach(json_object_get(table, "lr"), j, value) hy3_assert_within(
            "rate", fabs(hy3_schedule_rate(&s, (int64_t)j) - json_number_value(value)),
            1e-15 * s.peak);
    }
    json_decref(golden);
}

static double real(const json_t *kwargs, const char *key, double initial)
{
    const json_t *value = json_object_get(kwargs, key);

    return value ? json_number_value(value) : initial;
}

static int64_t whole(const json_t *kwargs, const char *key, int64_t initial)
{
    const json_t *value = json_object_get(kwargs, key);

    return value ? json_integer_value(value) : initial;
}

static enum hy3_ramp ramp(const json_t *kwargs, const char *key, enum hy3_ramp initial)
{
    const char *word = json_string_value(json_object_get(kwargs, key));

    if (!word)
        return initial;
    return strcmp(word, "linear") == 0   ? HY3_RAMP_LINEAR
           : strcmp(word, "cosine") == 0 ? HY3_RAMP_COSINE
                                         : HY3_RAMP_ONE_MINUS_SQRT;
}

/* A table of gen_schedules.py: what lr_scheduler_kwargs say, else transformers' defaults. */
static struct hy3_schedule schedule_of(const json_t *table)
{
    const json_t *k = json_object_get(table, "kwargs");
    struct hy3_schedule s = {.type = type_of(json_string_value(json_object_get(table, "type"))),
                             .peak = json_number_value(json_object_get(table, "learning_rate")),
                             .warmup = json_integer_value(json_object_get(table, "warmup_steps")),
                             .total_steps =
                                 json_integer_value(json_object_get(table, "total_steps")),
                             .end = real(k, "lr_end", 1e-7),
                             .power = real(k, "power", 1),
                             .timescale = whole(k, "timescale", 0),
                             .stable = whole(k, "num_stable_steps", -1),
                             .decay = whole(k, "num_decay_steps", 0),
                             .warmup_by = ramp(k, "warmup_type", HY3_RAMP_LINEAR),
                             .decay_by = ramp(k, "decay_type", HY3_RAMP_COSINE),
                             .warmup_rate = real(k, "warmup_lr_rate", -1)};

    s.cycles = real(k, "num_cycles", s.type == HY3_COSINE_WITH_RESTARTS ? 1 : 0.5);
    s.min_rate = real(k, "min_lr_rate", real(k, "min_lr_ratio", real(k, "min_lr", 0) / s.peak));
    return s;
}

static void rates_with_arguments_equal_the_tables(void **state)
{
    json_t *golden = hy3_golden_json("schedules/schedules.json"), *table, *value;
    size_t i, j;

    (void)state;
    assert_true(json_array_size(json_object_get(golden, "tables")) >= 170);
    json_array_foreach(json_object_get(golden, "tables"), i, table)
    {
        struct hy3_schedule s = schedule_of(table);

        assert_int_equal(json_array_size(json_object_get(table, "lr")), 40);
        json_array_foreach(json_object_get(table, "lr"), j, value)
        {
            double error = fabs(hy3_schedule_rate(&s, (int64_t)j) - json_number_value(value));

            if (error > 1e-14 * s.peak)
                fail_msg("table %zu, step %zu: off by %g of the peak", i, j, error / s.peak);
        }
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
        cmocka_unit_test(rates_with_arguments_equal_the_tables),
        cmocka_unit_test(warmup_of_a_ratio_rounds_up),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
