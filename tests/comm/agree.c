/* SPDX-License-Identifier: Apache-2.0 */
/* agree.c - one status and one text for all ranks; and a wait that gives up. */
#include "comm/agree.h"

#include "comm/comm.h"
#include "support/test.h"

static void one_failing_rank_stops_all(void **state)
{
    hy3_status mine = HY3_OK;

    (void)state;
    if (hy3_rank(MPI_COMM_WORLD) == 2)
        mine = hy3_fail(HY3_EIO, __FILE__, __LINE__, "state.h5: no space left");
    assert_all(hy3_agree(MPI_COMM_WORLD, mine, "saving") == HY3_EIO);
    assert_all(strcmp(hy3_error_text(), "state.h5: no space left (rank 2, saving)") == 0);
}

static void the_gravest_status_of_the_lowest_rank_wins(void **state)
{
    int rank = hy3_rank(MPI_COMM_WORLD);
    hy3_status mine =
        hy3_fail(rank == 0 ? HY3_EUSAGE : HY3_EDIVERGED, __FILE__, __LINE__, "text %d", rank);

    (void)state;
    assert_all(hy3_agree(MPI_COMM_WORLD, mine, "testing") == HY3_EDIVERGED);
    assert_all(strcmp(hy3_error_text(), "text 1 (rank 1, testing)") == 0);
}

static void agreement_without_failure_is_ok(void **state)
{
    (void)state;
    assert_all(hy3_agree(MPI_COMM_WORLD, HY3_OK, "testing") == HY3_OK);
}

static void a_broadcast_reaches_all(void **state)
{
    char data[1000];

    (void)state;
    memset(data, hy3_rank(MPI_COMM_WORLD) == 1 ? 7 : 0, sizeof data);
    hy3_broadcast(MPI_COMM_WORLD, 1, data, sizeof data, "testing");
    assert_all(data[0] == 7 && data[999] == 7);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_failing_rank_stops_all),
        cmocka_unit_test(the_gravest_status_of_the_lowest_rank_wins),
        cmocka_unit_test(agreement_without_failure_is_ok),
        cmocka_unit_test(a_broadcast_reaches_all),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
