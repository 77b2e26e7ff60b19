/* SPDX-License-Identifier: Apache-2.0 */
/* worker.c - work of another thread: its status, its text, and that one piece follows the other. */
#include "comm/worker.h"

#include "comm/comm.h"
#include "support/test.h"

#include <time.h>

struct count {
    int done, fail_at;
};

static hy3_status work(void *context)
{
    const struct timespec moment = {.tv_nsec = 3000000}; /* longer than a nap of the owner */
    struct count *c = context;

    nanosleep(&moment, NULL);
    if (++c->done == c->fail_at)
        HY3_FAIL(HY3_EIO, "piece %d: no space left", c->done);
    return HY3_OK;
}

static void work_is_done_piece_by_piece(void **state)
{
    struct hy3_worker *worker;
    struct count count = {.fail_at = -1};

    (void)state;
    assert_ok(hy3_worker_create(&worker));
    assert_ok(hy3_worker_end(worker, "testing")); /* nothing has begun */
    for (int i = 0; i < 20; i++) {
        hy3_worker_begin(worker, work, &count);
        assert_ok(hy3_worker_end(worker, "testing"));
        assert_int_equal(count.done, i + 1);
    }
    hy3_worker_free(worker);
}

static void a_failure_is_told_once_with_its_text(void **state)
{
    struct hy3_worker *worker;
    struct count count = {.fail_at = 2};

    (void)state;
    assert_ok(hy3_worker_create(&worker));
    hy3_worker_begin(worker, work, &count);
    assert_ok(hy3_worker_end(worker, "testing"));
    hy3_worker_begin(worker, work, &count);
    hy3_error_set("");
    assert_int_equal(hy3_worker_end(worker, "testing"), HY3_EIO);
    assert_string_equal(hy3_error_text(), "piece 2: no space left");
    assert_ok(hy3_worker_end(worker, "testing"));
    hy3_worker_free(worker);
}

static void freeing_waits_for_what_is_under_way(void **state)
{
    struct hy3_worker *worker;
    struct count count = {.fail_at = -1};

    (void)state;
    assert_ok(hy3_worker_create(&worker));
    hy3_worker_begin(worker, work, &count);
    hy3_worker_free(worker);
    assert_int_equal(count.done, 1);
    hy3_worker_free(NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(work_is_done_piece_by_piece),
        cmocka_unit_test(a_failure_is_told_once_with_its_text),
        cmocka_unit_test(freeing_waits_for_what_is_under_way),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
