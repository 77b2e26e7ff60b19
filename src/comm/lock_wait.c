/* SPDX-License-Identifier: Apache-2.0 */
/* lock_wait.c - rank 0 asks every half second; all ranks meet in between, so that no deadline of
 * theirs passes and the signal of any is heard. */
#include "comm/lock_wait.h"

#include "comm/agree.h"
#include "comm/comm.h"
#include "comm/stop.h"

#include <time.h>

static const char phase[] = "waiting for a lock";

static hy3_status ask(MPI_Comm comm, struct hy3_lock_request *request, struct hy3_lock **out)
{
    return hy3_rank(comm) == 0 ? hy3_lock_ask(request, out) : HY3_OK;
}

hy3_status hy3_lock_wait(MPI_Comm comm, const char *path, bool waits, struct hy3_lock **out)
{
    const struct timespec moment = {.tv_nsec = 500000000};
    struct hy3_lock_request request;
    int64_t state[2]; /* the lock is ours; the signal that a rank has noted */

    *out = NULL;
    HY3_AGREE(comm, hy3_lock_request(path, waits, &request), phase);
    for (;;) {
        HY3_AGREE(comm, ask(comm, &request, out), phase);
        state[0] = *out != NULL;
        state[1] = hy3_stop_noted();
        hy3_allreduce_int(comm, state, 2, MPI_MAX, phase);
        if (state[0])
            return HY3_OK;
        if (state[1])
            HY3_FAIL(HY3_STOPPED,
                     "stopped by %s while waiting for the lock '%s'; the same command begins again",
                     hy3_stop_name((int)state[1]), path);
        nanosleep(&moment, NULL);
    }
}
