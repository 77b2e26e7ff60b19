/* SPDX-License-Identifier: Apache-2.0 */
/* agree.c - the worst status wins, its text goes to all. */
#include "comm/agree.h"

#include "comm/abort.h"
#include "comm/comm.h"
#include "comm/wait.h"

#undef hy3_agree /* tests/support/analyzer.h */

hy3_status hy3_agree(MPI_Comm comm, hy3_status mine, const char *phase)
{
    int in[2] = {(int)mine, hy3_rank(comm)}, worst[2] = {HY3_OK, 0}; /* status, rank */
    char text[HY3_ERROR_MAX] = "";
    MPI_Request request;

    if (comm == MPI_COMM_NULL) /* of a group that is only planned */
        return mine;
    MPI_Iallreduce(in, worst, 1, MPI_2INT, MPI_MAXLOC, comm, &request); /* a tie: lowest rank */
    hy3_wait(&request, phase);
    if (worst[0] == HY3_OK)
        return HY3_OK;
    if (in[1] == worst[1]) {
        int room = (int)sizeof text - 64 - (int)strlen(phase);

        if (worst[1] == 0) /* rank 0 prints, it need not be named */
            snprintf(text, sizeof text, "%s", hy3_error_text());
        else
            snprintf(text, sizeof text, "%.*s (rank %d, %s)", room, hy3_error_text(), worst[1],
                     phase);
    }
    MPI_Ibcast(text, sizeof text, MPI_CHAR, worst[1], comm, &request);
    hy3_wait(&request, phase);
    hy3_error_set(text);
    return (hy3_status)worst[0];
}

hy3_status hy3_agree_together(MPI_Comm comm, hy3_status mine, const char *phase)
{
    int64_t failed = mine != HY3_OK;

    hy3_allreduce_int(comm, &failed, 1, MPI_SUM, phase);
    if (mine != HY3_OK && failed < hy3_size(comm))
        hy3_abort(mine, phase);
    return hy3_agree(comm, mine, phase);
}
