/* SPDX-License-Identifier: Apache-2.0 */
/* memory.c - checked allocation, growth, the arena that counts and hands out. */
#include "base/memory.h"

#include "base/arena.h"
#include "support/test.h"

static void memory_is_zeroed_aligned_and_counted(void **state)
{
    char *a, *none = (char *)1;

    (void)state;
    assert_ok(hy3_alloc(&a, 3, 100));
    assert_int_equal((uintptr_t)a % 64, 0);
    for (int i = 0; i < 300; i++)
        assert_int_equal(a[i], 0);
    hy3_free(a);
    assert_ok(hy3_alloc(&none, 0, 100));
    assert_null(none);
    hy3_free(NULL);
}

static void a_size_that_overflows_is_a_status(void **state)
{
    char *a = (char *)1;

    (void)state;
    assert_fails(HY3_ENOMEM, "elements of", hy3_alloc(&a, SIZE_MAX / 2, 4));
    assert_null(a);
    assert_fails(HY3_ENOMEM, "elements of", hy3_alloc(&a, SIZE_MAX, 1));
}

static void the_nth_allocation_fails_and_only_that(void **state)
{
    char *a, *b, *c;

    (void)state;
    hy3_alloc_fail_at(2);
    assert_ok(hy3_alloc(&a, 1, 1));
    assert_fails(HY3_ENOMEM, "memory", hy3_alloc(&b, 1, 1));
    assert_null(b);
    assert_ok(hy3_alloc(&c, 1, 1));
    hy3_free(a);
    hy3_free(c);
}

static void growth_keeps_the_content_and_zeroes_the_rest(void **state)
{
    int *a = NULL;
    size_t capacity = 0, before;

    (void)state;
    for (size_t n = 1; n <= 1000; n++) {
        before = capacity;
        assert_ok(hy3_grow(&a, &capacity, n, sizeof *a));
        assert_true(capacity >= n && (capacity == before || capacity >= 2 * before));
        assert_int_equal(a[n - 1], 0);
        a[n - 1] = (int)n;
    }
    for (int i = 0; i < 1000; i++)
        assert_int_equal(a[i], i + 1);
    before = capacity;
    hy3_alloc_fail_at(1);
    assert_fails(HY3_ENOMEM, "memory", hy3_grow(&a, &capacity, 5000, sizeof *a));
    assert_true(capacity == before && a[999] == 1000);
    assert_fails(HY3_ENOMEM, "elements", hy3_grow(&a, &capacity, SIZE_MAX - 1, sizeof *a));
    assert_true(capacity == before && a[999] == 1000);
    hy3_free(a);
}

static void a_copied_text_is_its_own(void **state)
{
    char text[] = "abc", *copy;

    (void)state;
    assert_ok(hy3_strdup(text, &copy));
    text[0] = 'x';
    assert_string_equal(copy, "abc");
    hy3_free(copy);
}

/* The same sequence of requests, once counted and once served. */
static size_t take_all(struct hy3_arena *arena, char **last)
{
    size_t mark;

    hy3_arena_take(arena, 100, 3);
    mark = hy3_arena_mark(arena);
    hy3_arena_take(arena, 1000, 8);
    hy3_arena_reset(arena, mark);
    *last = hy3_arena_take(arena, 5, 4);
    return mark;
}

static void a_counting_arena_gives_the_size_a_serving_one_needs(void **state)
{
    struct hy3_arena counting = {0}, serving = {0};
    char *last, *memory;
    size_t mark;

    (void)state;
    take_all(&counting, &last);
    assert_null(last);
    assert_ok(hy3_alloc(&memory, counting.peak, 1));
    serving.base = memory;
    serving.size = counting.peak;
    mark = take_all(&serving, &last);
    assert_ptr_equal(memory + mark, last);
    assert_int_equal((uintptr_t)last % 64, 0);
    assert_int_equal(serving.peak, counting.peak);
    assert_int_equal(counting.peak, 320 + 8000);
    assert_int_equal(serving.used, 320 + 64);
    hy3_free(memory);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_aligned_and_counted),
        cmocka_unit_test(a_size_that_overflows_is_a_status),
        cmocka_unit_test(the_nth_allocation_fails_and_only_that),
        cmocka_unit_test(growth_keeps_the_content_and_zeroes_the_rest),
        cmocka_unit_test(a_copied_text_is_its_own),
        cmocka_unit_test(a_counting_arena_gives_the_size_a_serving_one_needs),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
