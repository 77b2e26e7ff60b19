/* SPDX-License-Identifier: Apache-2.0 */
/* optimizer.c - the split master is the fp32 master; state comes back as it was put, wherever it
 * lies. */
#include "optim/optimizer.h"

#include "base/memory.h"
#include "base/random.h"
#include "support/test.h"

#include <math.h>

enum { N = 3000, STEPS = 40 };

static float drawn(uint64_t which, int64_t i)
{
    uint32_t word[4];

    hy3_random(4, HY3_RANDOM_WEIGHT, which, (uint64_t)i, word);
    return 2 * hy3_random_uniform(word[0]) - 1;
}

/* An optimizer over two ranges, each with a dtype of its own. */
static struct hy3_optimizer *open_mixed(const hy3_dtype dtypes[2], bool host, void *first,
                                        void *second, const float *grads)
{
    struct hy3_optimizer *o;
    const struct hy3_backend *backend;
    struct hy3_optimizer_options options = {
        .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .weight_decay = 0.1, .placement = {.host = host}};
    struct hy3_range ranges[] = {
        {.name = "a",
         .weight = first,
         .dtype = dtypes[0],
         .grad = grads,
         .count = 1001,
         .decay = true,
         .rate = 1,
         .norm = {0, 1001}},
        {.name = "b",
         .weight = second,
         .dtype = dtypes[1],
         .grad = grads + 1001,
         .count = N - 1001,
         .rate = 1,
         .norm = {5, N - 1006}},
    };

    assert_ok(hy3_backend_open(MPI_COMM_WORLD, "cpu", &backend));
    assert_ok(hy3_optimizer_create(backend, &options, ranges, 2, &o));
    return o;
}

/* The same over the halves of one array. */
static struct hy3_optimizer *open_optimizer(hy3_dtype dtype, bool host, void *weights,
                                            const float *grads)
{
    return open_mixed((hy3_dtype[]){dtype, dtype}, host, weights,
                      (char *)weights + 1001 * hy3_dtype_size(dtype), grads);
}

static void an_fp32_range_stands_beside_a_split_one(void **state)
{
    static float wide[N], grads[N], masters[N], plain[N];
    static hy3_bf16 narrow[N];

    (void)state;
    for (int i = 0; i < 4; i++) {
        bool host = i & 1, is_second = i & 2; /* the fp32 one */
        const hy3_dtype dtypes[] = {is_second ? HY3_BF16 : HY3_FP32,
                                    is_second ? HY3_FP32 : HY3_BF16};
        struct hy3_optimizer *one = open_optimizer(HY3_FP32, false, wide, grads), *other;

        other = open_mixed(dtypes, host, is_second ? (void *)narrow : plain,
                           is_second ? (void *)plain : narrow, grads);
        for (int64_t j = 0; j < N; j++)
            wide[j] = drawn(0, j);
        assert_ok(hy3_optimizer_put(other, HY3_MASTER, 0, (struct hy3_span){0, 1001}, wide));
        assert_ok(
            hy3_optimizer_put(other, HY3_MASTER, 1, (struct hy3_span){0, N - 1001}, wide + 1001));
        for (int step = 1; step <= 3; step++) {
            for (int64_t j = 0; j < N; j++)
                grads[j] = drawn((uint64_t)step, j);
            assert_ok(hy3_optimizer_step(one, NULL, step, 1e-3, 0.5));
            assert_ok(hy3_optimizer_step(other, NULL, step, 1e-3, 0.5));
        }
        assert_ok(hy3_optimizer_get(other, HY3_MASTER, 0, (struct hy3_span){0, 1001}, masters));
        assert_ok(hy3_optimizer_get(other, HY3_MASTER, 1, (struct hy3_span){0, N - 1001},
                                    masters + 1001));
        assert_memory_equal(wide, masters, sizeof wide);
        assert_memory_equal(plain, is_second ? wide + 1001 : wide,
                            (is_second ? N - 1001 : 1001) * sizeof *plain);
        assert_true(hy3_optimizer_bytes(other) < hy3_optimizer_bytes(one) + 2 * N + 64);
        hy3_optimizer_free(one);
        hy3_optimizer_free(other);
    }
}

static void split_master_equals_a_separate_fp32_master(void **state)
{
    static float wide[N], grads[N], masters[N], before[N];
    static hy3_bf16 narrow[N];

    (void)state;
    for (int host = 0; host < 2; host++) {
        struct hy3_optimizer *one, *other;

        for (int64_t i = 0; i < N; i++)
            before[i] = wide[i] = drawn(0, i);
        one = open_optimizer(HY3_FP32, false, wide, grads);
        other = open_optimizer(HY3_BF16, host, narrow, grads);
        assert_ok(hy3_optimizer_put(other, HY3_MASTER, 0, (struct hy3_span){0, 1001}, before));
        assert_ok(
            hy3_optimizer_put(other, HY3_MASTER, 1, (struct hy3_span){0, N - 1001}, before + 1001));
        for (int step = 1; step <= STEPS; step++) {
            for (int64_t i = 0; i < N; i++)
                grads[i] = drawn((uint64_t)step, i);
            assert_ok(hy3_optimizer_step(one, NULL, step, 1e-3, 0.5));
            assert_ok(hy3_optimizer_step(other, NULL, step, 1e-3, 0.5));
            assert_ok(hy3_optimizer_get(other, HY3_MASTER, 0, (struct hy3_span){0, 1001}, masters));
            assert_ok(hy3_optimizer_get(other, HY3_MASTER, 1, (struct hy3_span){0, N - 1001},
                                        masters + 1001));
            assert_memory_equal(wide, masters, sizeof wide);
        }
        for (int64_t i = 0; i < N; i++) { /* the weight is its master, rounded to nearest */
            float low = hy3_float_from_bits(((uint32_t)narrow[i] - 1) << 16);
            float here = hy3_float_from_bf16(narrow[i]);
            float high = hy3_float_from_bits(((uint32_t)narrow[i] + 1) << 16);
            float off = here > wide[i] ? here - wide[i] : wide[i] - here;

            assert_true(off <= (wide[i] > low ? wide[i] - low : low - wide[i]));
            assert_true(off <= (wide[i] > high ? wide[i] - high : high - wide[i]));
        }
        hy3_optimizer_free(one);
        hy3_optimizer_free(other);
    }
}

static void state_comes_back(void **state)
{
    static float weights[N], grads[N], in[N], out[N];

    (void)state;
    for (int host = 0; host < 2; host++) {
        struct hy3_optimizer *o = open_optimizer(HY3_FP32, host, weights, grads);

        for (int field = 0; field < HY3_FIELDS; field++) {
            for (int64_t i = 0; i < N - 1001; i++)
                in[i] = drawn((uint64_t)field + 100, i);
            assert_ok(hy3_optimizer_put(o, field, 1, (struct hy3_span){7, 900}, in));
            assert_ok(hy3_optimizer_get(o, field, 1, (struct hy3_span){7, 900}, out));
            assert_memory_equal(in, out, 900 * sizeof *in);
        }
        hy3_optimizer_free(o);
    }
}

static void the_norm_counts_its_parts_and_names_what_is_not_finite(void **state)
{
    static float weights[N], grads[N];
    struct hy3_optimizer *o = open_optimizer(HY3_FP32, false, weights, grads);
    const double *sums;

    (void)state;
    for (int64_t i = 0; i < N; i++)
        grads[i] = 2;
    assert_ok(hy3_optimizer_square_sums(o, NULL, &sums));
    assert_true(sums[0] == 4.0 * 1001 && sums[1] == 4.0 * (N - 1006));
    grads[1001 + 2] = (float)INFINITY; /* outside the norm's part: another rank counts it */
    assert_ok(hy3_optimizer_square_sums(o, NULL, &sums));
    assert_true(isfinite(sums[1]));
    grads[1001 + 6] = (float)NAN;
    assert_ok(hy3_optimizer_square_sums(o, NULL, &sums));
    assert_true(isfinite(sums[0]) && isnan(sums[1]));
    hy3_optimizer_free(o);
}

static void every_master_is_joined_again(void **state)
{
    (void)state;
    for (uint64_t i = 0; i < 200000; i++) {
        uint32_t word[4];
        int16_t low;
        float x;
        hy3_bf16 high;

        hy3_random(1, HY3_RANDOM_WEIGHT, 0, i, word);
        x = hy3_float_from_bits(word[0]);
        high = hy3_split(x, &low);
        assert_int_equal(hy3_bits_from_float(hy3_join(high, low)), word[0]);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(split_master_equals_a_separate_fp32_master),
        cmocka_unit_test(an_fp32_range_stands_beside_a_split_one),
        cmocka_unit_test(state_comes_back),
        cmocka_unit_test(the_norm_counts_its_parts_and_names_what_is_not_finite),
        cmocka_unit_test(every_master_is_joined_again),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
