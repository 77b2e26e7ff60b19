/* SPDX-License-Identifier: Apache-2.0 */
/* random.c - Philox against published vectors, and what is made of it. */
#include "base/random.h"

#include "base/memory.h"
#include "support/test.h"

#include <math.h>

/* Random123's known answers for philox4x32-10. The purpose is mixed into the key's upper word by
 * exclusive or. */
static void philox_gives_the_published_words(void **state)
{
    static const struct {
        uint32_t counter[4], key[2], words[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const uint32_t *c = known[i].counter;
        uint32_t upper = known[i].key[1] ^ (HY3_RANDOM_ORDER * 0x9e3779b1u), words[4];

        hy3_random((uint64_t)upper << 32 | known[i].key[0], HY3_RANDOM_ORDER,
                   (uint64_t)c[3] << 32 | c[2], (uint64_t)c[1] << 32 | c[0], words);
        assert_memory_equal(words, known[i].words, sizeof words);
    }
}

static void a_permutation_hits_every_place_once(void **state)
{
    (void)state;
    for (uint64_t n = 1; n <= 2000; n++) {
        char *seen;

        assert_ok(hy3_alloc(&seen, n, 1));
        for (uint64_t i = 0; i < n; i++) {
            uint64_t place = hy3_random_permute(n * 31, HY3_RANDOM_ORDER, n % 5, n, i);

            assert_true(place < n && !seen[place]);
            seen[place] = 1;
        }
        hy3_free(seen);
    }
}

static void a_permutation_of_many_things_stays_below_their_number(void **state)
{
    static const uint64_t numbers[] = {1000003, (uint64_t)1 << 40, ((uint64_t)1 << 62) + 1,
                                       UINT64_MAX};

    (void)state;
    for (size_t k = 0; k < 4; k++)
        for (uint64_t i = 0; i < 200; i++) {
            uint64_t place = hy3_random_permute(5, HY3_RANDOM_ORDER, k, numbers[k], i);

            assert_true(place < numbers[k]);
            for (uint64_t j = 0; j < i; j++)
                assert_true(place != hy3_random_permute(5, HY3_RANDOM_ORDER, k, numbers[k], j));
        }
}

/* The next epoch, another seed, another purpose: another order. */
static void permutations_differ_where_they_must(void **state)
{
    enum { N = 64 };

    int same[3] = {0};

    (void)state;
    for (uint64_t i = 0; i < N; i++) {
        uint64_t place = hy3_random_permute(42, HY3_RANDOM_ORDER, 0, N, i);

        same[0] += place == hy3_random_permute(42, HY3_RANDOM_ORDER, 1, N, i);
        same[1] += place == hy3_random_permute(43, HY3_RANDOM_ORDER, 0, N, i);
        same[2] += place == hy3_random_permute(42, HY3_RANDOM_SPLIT, 0, N, i);
    }
    for (int k = 0; k < 3; k++)
        assert_true(same[k] < 8); /* one on average */
}

static void uniforms_fill_the_half_open_interval(void **state)
{
    double sum = 0;

    (void)state;
    assert_true(hy3_random_uniform(0) == 0);
    assert_true(hy3_random_uniform(UINT32_MAX) < 1 && hy3_random_uniform(UINT32_MAX) > 0.9999f);
    for (uint64_t i = 0; i < 100000; i++) {
        uint32_t word[4];

        hy3_random(2, HY3_RANDOM_DROPOUT, 1, i, word);
        sum += (double)hy3_random_uniform(word[i % 4]);
    }
    assert_true(fabs(sum / 100000 - 0.5) < 0.005);
}

static void a_permutation_has_no_favourite(void **state)
{
    enum { N = 10, RUNS = 20000 };

    int counts[N][N] = {{0}};
    double chi = 0;

    (void)state;
    for (uint64_t run = 0; run < RUNS; run++)
        for (uint64_t i = 0; i < N; i++)
            counts[i][hy3_random_permute(run, HY3_RANDOM_ORDER, 0, N, i)]++;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            chi += pow(counts[i][j] - RUNS / (double)N, 2) / (RUNS / (double)N);
    assert_true(chi < 130); /* 81 degrees of freedom: above 130 once in 2000 */
}

static void normals_have_mean_zero_and_variance_one(void **state)
{
    enum { N = 100000 };

    double sum = 0, squares = 0;

    (void)state;
    for (uint64_t i = 0; i < N; i++) {
        uint32_t word[4];
        double x[2];

        hy3_random(1, HY3_RANDOM_WEIGHT, 0, i, word);
        hy3_random_normal(word[0], word[1], x);
        sum += x[0] + x[1];
        squares += x[0] * x[0] + x[1] * x[1];
    }
    assert_true(fabs(sum / (2 * N)) < 0.01);
    assert_true(fabs(squares / (2 * N) - 1) < 0.02);
}

static void a_secret_is_another_one_each_time(void **state)
{
    uint64_t first = hy3_random_secret(), second = hy3_random_secret();

    (void)state;
    assert_true(first != second && first >> 32 != second >> 32);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_words),
        cmocka_unit_test(a_permutation_hits_every_place_once),
        cmocka_unit_test(a_permutation_of_many_things_stays_below_their_number),
        cmocka_unit_test(permutations_differ_where_they_must),
        cmocka_unit_test(uniforms_fill_the_half_open_interval),
        cmocka_unit_test(a_permutation_has_no_favourite),
        cmocka_unit_test(normals_have_mean_zero_and_variance_one),
        cmocka_unit_test(a_secret_is_another_one_each_time),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
