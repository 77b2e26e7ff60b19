/* SPDX-License-Identifier: Apache-2.0 */
/* comm.c - messages of host memory by non-blocking calls of MPI. */
#include "comm/comm.h"

#include "comm/wait.h"

void hy3_broadcast(MPI_Comm comm, int root, void *data, size_t bytes, const char *phase)
{
    const size_t piece = (size_t)1 << 30; /* counts of MPI are int */

    for (size_t at = 0; at < bytes; at += piece) {
        int count = (int)(bytes - at < piece ? bytes - at : piece);
        MPI_Request request;

        MPI_Ibcast((char *)data + at, count, MPI_BYTE, root, comm, &request);
        hy3_wait(&request, phase);
    }
}

void hy3_allreduce_int(MPI_Comm comm, int64_t *values, int count, MPI_Op op, const char *phase)
{
    MPI_Request request;

    MPI_Iallreduce(MPI_IN_PLACE, values, count, MPI_INT64_T, op, comm, &request);
    hy3_wait(&request, phase);
}

void hy3_allreduce_real(MPI_Comm comm, double *values, int count, MPI_Op op, const char *phase)
{
    MPI_Request request;

    if (comm == MPI_COMM_NULL) /* of a group that is only planned */
        return;
    MPI_Iallreduce(MPI_IN_PLACE, values, count, MPI_DOUBLE, op, comm, &request);
    hy3_wait(&request, phase);
}

void hy3_allgather_ints(MPI_Comm comm, const int64_t *values, int count, int64_t *all,
                        const char *phase)
{
    MPI_Request request;

    MPI_Iallgather(values, count, MPI_INT64_T, all, count, MPI_INT64_T, comm, &request);
    hy3_wait(&request, phase);
}

void hy3_group_allgather(const struct hy3_group *group, const int64_t *values, int count,
                         int64_t *all, const char *phase)
{
    if (group->comm != MPI_COMM_NULL) {
        hy3_allgather_ints(group->comm, values, count, all, phase);
        return;
    }
    for (int r = 0; r < group->size; r++) /* only planned: all ranks are alike */
        memcpy(all + (ptrdiff_t)r * count, values, (size_t)count * sizeof *values);
}

void hy3_allgather_int(MPI_Comm comm, int64_t value, int64_t *all, const char *phase)
{
    hy3_allgather_ints(comm, &value, 1, all, phase);
}

void hy3_barrier(MPI_Comm comm, const char *phase)
{
    MPI_Request request;

    MPI_Ibarrier(comm, &request);
    hy3_wait(&request, phase);
}
