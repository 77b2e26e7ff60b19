/* SPDX-License-Identifier: Apache-2.0 */
/* test.h - the part of cmocka that tests/backend/kernels.c uses, for machines without it
 * (tests/gpu/check.sh). Writes TAP. */
#pragma once

#include "base/error.h"

#include <fnmatch.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
    const char *name;
    void (*run)(void **state);
};

static jmp_buf test_ends;
static const char *test_filter = "*";

enum { TEST_FAILED = 1, TEST_SKIPPED };

#define cmocka_unit_test(function) \
    {                              \
#        function, function        \
    }
#define cmocka_set_test_filter(pattern) (test_filter = (pattern))
#define print_message(...)              (printf("# "), printf(__VA_ARGS__))
#define skip()                          longjmp(test_ends, TEST_SKIPPED)
#define fail_msg(...) \
    (printf("# "), printf(__VA_ARGS__), printf("\n"), longjmp(test_ends, TEST_FAILED))
#define assert_true(fact)            test_check((fact), __FILE__, __LINE__, #fact)
#define assert_int_equal(a, b)       assert_true((a) == (b))
#define assert_memory_equal(a, b, n) assert_true(memcmp((a), (b), (n)) == 0)
#define assert_ok(call)              assert_true(test_is_ok(call))

static inline void test_check(bool holds, const char *file, int line, const char *fact)
{
    if (!holds)
        fail_msg("%s:%d: %s", file, line, fact);
}

static inline bool test_is_ok(hy3_status status)
{
    if (status != HY3_OK)
        printf("# %s\n", hy3_error_text());
    return status == HY3_OK;
}

static inline int hy3_test_run(int *argc, char ***argv, const struct CMUnitTest *tests,
                               size_t count)
{
    size_t failed = 0, number = 0;

    (void)argc;
    (void)argv;
    for (size_t i = 0; i < count; i++) {
        int end;

        if (fnmatch(test_filter, tests[i].name, 0) != 0)
            continue;
        number++;
        if ((end = setjmp(test_ends)) == 0)
            tests[i].run(NULL);
        failed += end != 0; /* a skip, too: there is no other backend to test */
        printf("%s %zu - %s\n", end != 0 ? "not ok" : "ok", number, tests[i].name);
        fflush(stdout);
    }
    printf("1..%zu\n", number);
    return failed != 0 || number == 0;
}
