/* SPDX-License-Identifier: Apache-2.0 */
/* packing.c - rows: whole samples, each once, full, and the same however many threads pack. */
#include "data/packing.h"

#include "base/memory.h"
#include "base/random.h"
#include "support/test.h"

#include <omp.h>

enum { LENGTH = 1000 };

struct lengths {
    int64_t n, *tokens;
};

static int64_t length_of(const void *of, int64_t place)
{
    return ((const struct lengths *)of)->tokens[place];
}

/* Lengths from 1 to LENGTH, most of them short. */
static struct lengths draw(int64_t n)
{
    struct lengths l = {.n = n};

    assert_ok(hy3_alloc(&l.tokens, (size_t)n, sizeof *l.tokens));
    for (int64_t i = 0; i < n; i++) {
        uint32_t words[4];
        double u;

        hy3_random(5, HY3_RANDOM_DUMMY, 0, (uint64_t)i, words);
        u = hy3_random_uniform(words[0]);
        l.tokens[i] = 1 + (int64_t)(u * u * u * LENGTH);
    }
    return l;
}

static struct hy3_packing *pack(const struct lengths *l)
{
    struct hy3_packing *p;

    assert_ok(hy3_packing_create(l->n, LENGTH, length_of, l, &p));
    return p;
}

static int64_t tokens_of(const struct hy3_packing *p, const struct lengths *l, int64_t row)
{
    int64_t tokens = 0;

    for (int64_t i = p->starts[row]; i < p->starts[row + 1]; i++)
        tokens += l->tokens[hy3_packing_place(p, i)];
    return tokens;
}

static void every_sample_stands_once_in_a_row_that_holds_it(void **state)
{
    static const int64_t sizes[] = {1, 2, 100, 4095, 4096, 4097, 20000};

    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        struct lengths l = draw(sizes[s]);
        struct hy3_packing *p = pack(&l);
        int64_t tokens = 0, fullest = 0, most = 0;
        char *seen;

        assert_ok(hy3_alloc(&seen, (size_t)l.n, 1));
        for (int64_t i = 0; i < l.n; i++) {
            int64_t place = hy3_packing_place(p, i);

            assert_true(place >= 0 && place < l.n);
            assert_true(place / HY3_PACKING_WINDOW == i / HY3_PACKING_WINDOW);
            assert_int_equal(seen[place]++, 0);
        }
        assert_int_equal(p->starts[0], 0);
        assert_int_equal(p->starts[p->rows], l.n);
        for (int64_t r = 0; r < p->rows; r++) {
            int64_t here = tokens_of(p, &l, r), count = p->starts[r + 1] - p->starts[r];

            assert_true(count > 0 && here <= LENGTH);
            tokens += here;
            fullest = here > fullest ? here : fullest;
            most = count > most ? count : most;
        }
        assert_true(p->tokens == tokens && p->fullest == fullest && p->most == most);
        hy3_packing_free(p);
        hy3_free(seen);
        hy3_free(l.tokens);
    }
}

/* 6 5 5 4 4 3 2 1 in rows of 10: by falling length into the row with the least space that holds
 * it, 6+4, 5+5, 4+3+2+1. By places: the rows in the order of their first samples. */
static void best_fit_decreasing_is_worked_by_hand(void **state)
{
    static int64_t tokens[] = {3, 5, 4, 1, 5, 6, 2, 4};
    static const int64_t wanted[] = {0, 3, 6, 7, 1, 4, 2, 5}, starts[] = {0, 4, 6, 8};
    const struct lengths l = {8, tokens};
    struct hy3_packing *p;

    (void)state;
    assert_ok(hy3_packing_create(8, 10, length_of, &l, &p));
    assert_int_equal(p->rows, 3);
    assert_memory_equal(p->starts, starts, sizeof starts);
    for (int64_t i = 0; i < 8; i++)
        assert_int_equal(hy3_packing_place(p, i), wanted[i]);
    assert_true(hy3_packing_fill(p) == 1);
    hy3_packing_free(p);
}

static void rows_and_their_samples_are_in_the_order_of_the_places(void **state)
{
    struct lengths l = draw(4096);
    struct hy3_packing *p = pack(&l);

    (void)state;
    for (int64_t r = 0; r < p->rows; r++) {
        for (int64_t i = p->starts[r] + 1; i < p->starts[r + 1]; i++)
            assert_true(hy3_packing_place(p, i) > hy3_packing_place(p, i - 1));
        if (r > 0)
            assert_true(hy3_packing_place(p, p->starts[r]) >
                        hy3_packing_place(p, p->starts[r - 1]));
    }
    hy3_packing_free(p);
    hy3_free(l.tokens);
}

static void rows_are_nearly_full_and_the_same_for_any_number_of_threads(void **state)
{
    struct lengths l = draw(50000);
    const int threads = omp_get_max_threads();
    struct hy3_packing *one, *three;

    (void)state;
    omp_set_num_threads(1);
    one = pack(&l);
    omp_set_num_threads(3);
    three = pack(&l);
    omp_set_num_threads(threads);
    assert_true(hy3_packing_fill(one) > 0.99);
    assert_int_equal(one->rows, three->rows);
    assert_memory_equal(one->order, three->order, (size_t)l.n * sizeof *one->order);
    assert_memory_equal(one->starts, three->starts, (size_t)(one->rows + 1) * sizeof *one->starts);
    hy3_packing_free(one);
    hy3_packing_free(three);
    hy3_free(l.tokens);
}

static void samples_as_long_as_a_row_stand_alone(void **state)
{
    struct lengths l = draw(10);
    struct hy3_packing *p;

    (void)state;
    for (int i = 0; i < 10; i++)
        l.tokens[i] = LENGTH;
    p = pack(&l);
    assert_true(p->rows == 10 && p->most == 1 && p->fullest == LENGTH);
    for (int64_t i = 0; i < 10; i++)
        assert_int_equal(hy3_packing_place(p, i), i);
    hy3_packing_free(p);
    hy3_free(l.tokens);
}

static void a_failed_allocation_is_an_error(void **state)
{
    struct lengths l = draw(5000);
    struct hy3_packing *p;

    (void)state;
    for (int n = 1; n <= 4; n++) {
        hy3_alloc_fail_at(n);
        assert_int_equal(hy3_packing_create(l.n, LENGTH, length_of, &l, &p), HY3_ENOMEM);
        hy3_alloc_fail_at(0);
    }
    hy3_free(l.tokens);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sample_stands_once_in_a_row_that_holds_it),
        cmocka_unit_test(best_fit_decreasing_is_worked_by_hand),
        cmocka_unit_test(rows_and_their_samples_are_in_the_order_of_the_places),
        cmocka_unit_test(rows_are_nearly_full_and_the_same_for_any_number_of_threads),
        cmocka_unit_test(samples_as_long_as_a_row_stand_alone),
        cmocka_unit_test(a_failed_allocation_is_an_error),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
