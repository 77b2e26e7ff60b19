/* SPDX-License-Identifier: Apache-2.0 */
/* ending.c - ends a job in the way its first argument names; ends.tap looks at what is left of
 * it. */
#include "comm/abort.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "comm/end.h"
#include "comm/heartbeat.h"
#include "comm/launch.h"
#include "comm/stop.h"
#include "comm/wait.h"
#include "comm/watchdog.h"

#include <signal.h>
#include <unistd.h>

/* Rank 1 never comes; rank 0 gives up. */
static void hang(void)
{
    hy3_wait_deadline(1);
    if (hy3_rank(MPI_COMM_WORLD) == 1)
        sleep(60);
    hy3_barrier(MPI_COMM_WORLD, "meeting");
}

/* The last rank is in a call that does not return. */
static hy3_status hang_in_call(void)
{
    HY3_TRY(hy3_heartbeat_open(MPI_COMM_WORLD));
    hy3_heartbeat("testing", 1, -1);
    hy3_wait_deadline(1);
    hy3_watchdog_start();
    if (hy3_rank(MPI_COMM_WORLD) == hy3_size(MPI_COMM_WORLD) - 1) {
        hy3_watchdog_enter("call(argument)", "folder/file.cu", 7);
        sleep(60);
    }
    hy3_barrier(MPI_COMM_WORLD, "meeting");
    return HY3_OK;
}

/* Rank 1 fails where the others cannot be told. */
static void abort_one(void)
{
    if (hy3_rank(MPI_COMM_WORLD) == 1)
        hy3_abort(hy3_fail(HY3_EDIVERGED, __FILE__, __LINE__, "the loss is nan"), "step 7");
    hy3_barrier(MPI_COMM_WORLD, "meeting");
}

/* All fail; the message is rank 1's. */
static hy3_status fail_one(void)
{
    hy3_status status = HY3_OK;

    if (hy3_rank(MPI_COMM_WORLD) == 1)
        status = hy3_fail(HY3_EIO, __FILE__, __LINE__, "no space left");
    return hy3_agree(MPI_COMM_WORLD, status, "saving");
}

/* Rank 1 has a request to stop; the others hear of it in the middle of their work. */
static hy3_status stop_one(void)
{
    hy3_status status = HY3_OK;

    if (hy3_rank(MPI_COMM_WORLD) == 1)
        raise(SIGTERM);
    while (status == HY3_OK)
        status = hy3_stop_check("working");
    return hy3_agree(MPI_COMM_WORLD, status, "working");
}

int main(int argc, char **argv)
{
    hy3_status status = hy3_start(&argc, &argv, "hy3_test");
    const char *way = argc > 1 ? argv[1] : "";

    if (status == HY3_OK && strcmp(way, "hang") == 0)
        hang();
    if (status == HY3_OK && strcmp(way, "call") == 0)
        status = hang_in_call();
    if (status == HY3_OK && strcmp(way, "abort") == 0)
        abort_one();
    if (status == HY3_OK && strcmp(way, "fail") == 0)
        status = fail_one();
    if (status == HY3_OK && strcmp(way, "stop") == 0)
        status = stop_one();
    if (status == HY3_OK && strcmp(way, "threads") == 0 && hy3_rank(MPI_COMM_WORLD) == 0)
        printf("%d\n", hy3_threads());
    return hy3_finish(status);
}
