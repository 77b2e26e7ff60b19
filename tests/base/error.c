/* SPDX-License-Identifier: Apache-2.0 */
/* error.c - statuses, the thread's text, the end on a broken invariant. */
#include "base/error.h"

#include "support/test.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void a_failure_keeps_code_and_text(void **state)
{
    (void)state;
    assert_int_equal(hy3_fail(HY3_EIO, "a.c", 7, "cannot read '%s': %d", "x", 5), HY3_EIO);
    assert_string_equal(hy3_error_text(), "cannot read 'x': 5");
    hy3_error_set("another");
    assert_string_equal(hy3_error_text(), "another");
}

static void the_debug_level_adds_the_place(void **state)
{
    const char *before = getenv("HY3_LOG");
    char kept[32];

    (void)state;
    snprintf(kept, sizeof kept, "%s", before ? before : "quiet");
    setenv("HY3_LOG", "debug", 1);
    hy3_fail(HY3_EIO, "a.c", 7, "x");
    setenv("HY3_LOG", kept, 1);
    assert_string_equal(hy3_error_text(), "x [a.c:7]");
}

static void a_text_that_is_too_long_is_cut(void **state)
{
    char lengthy[2 * HY3_ERROR_MAX];

    (void)state;
    memset(lengthy, 'x', sizeof lengthy);
    lengthy[sizeof lengthy - 1] = '\0';
    hy3_fail(HY3_EIO, "a.c", 7, "%s", lengthy);
    assert_int_equal(strlen(hy3_error_text()), HY3_ERROR_MAX - 1);
    hy3_error_set(lengthy);
    assert_int_equal(strlen(hy3_error_text()), HY3_ERROR_MAX - 1);
}

static void *fail_elsewhere(void *unused)
{
    hy3_fail(HY3_ENOMEM, "b.c", 1, "of another thread");
    return unused;
}

static void every_thread_has_its_own_text(void **state)
{
    pthread_t thread;

    (void)state;
    hy3_error_set("mine");
    assert_int_equal(pthread_create(&thread, NULL, fail_elsewhere, NULL), 0);
    pthread_join(thread, NULL);
    assert_string_equal(hy3_error_text(), "mine");
}

static void statuses_are_in_order_of_gravity_and_have_their_exit_codes(void **state)
{
    (void)state;
    assert_true(HY3_OK < HY3_STOPPED && HY3_STOPPED < HY3_EUSAGE && HY3_EUSAGE < HY3_EFORMAT);
    assert_true(HY3_ENOMEM < HY3_EDIVERGED && HY3_EDIVERGED < HY3_EPEER);
    assert_int_equal(hy3_exit_code(HY3_OK), 0);
    assert_int_equal(hy3_exit_code(HY3_STOPPED), 75);
    assert_int_equal(hy3_exit_code(HY3_EUSAGE), 2);
    assert_int_equal(hy3_exit_code(HY3_EFORMAT), 1);
    assert_int_equal(hy3_exit_code(HY3_EIO), 1);
    assert_int_equal(hy3_exit_code(HY3_ENOMEM), 1);
    assert_int_equal(hy3_exit_code(HY3_EDIVERGED), 3);
    assert_int_equal(hy3_exit_code(HY3_EPEER), 4);
    assert_string_equal(hy3_status_text(HY3_EPEER), "a rank has died or hangs");
}

/* In a child, whose standard error is read. */
static void a_broken_invariant_aborts_with_its_place(void **state)
{
    char text[4096] = "";
    size_t used = 0;
    ssize_t got;
    int ends[2], status;
    pid_t child;

    (void)state;
    assert_int_equal(pipe(ends), 0);
    if ((child = fork()) == 0) {
        dup2(ends[1], STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        HY3_ASSERT(1 + 1 == 3);
        _exit(0);
    }
    close(ends[1]);
    while (used < sizeof text - 1 && (got = read(ends[0], text + used, sizeof text - 1 - used)) > 0)
        used += (size_t)got;
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(text, "error.c:"));
    assert_non_null(strstr(text, "the invariant 1 + 1 == 3 fails"));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_failure_keeps_code_and_text),
        cmocka_unit_test(the_debug_level_adds_the_place),
        cmocka_unit_test(a_text_that_is_too_long_is_cut),
        cmocka_unit_test(every_thread_has_its_own_text),
        cmocka_unit_test(statuses_are_in_order_of_gravity_and_have_their_exit_codes),
        cmocka_unit_test(a_broken_invariant_aborts_with_its_place),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
