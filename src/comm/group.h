/* SPDX-License-Identifier: Apache-2.0 */
/* group.h - a communicator, with this rank's place in it and its size. */
#pragma once

#include <mpi.h>

static inline int hy3_rank(MPI_Comm comm)
{
    int rank;

    MPI_Comm_rank(comm, &rank);
    return rank;
}

static inline int hy3_size(MPI_Comm comm)
{
    int size;

    MPI_Comm_size(comm, &size);
    return size;
}

/* A communicator with its rank and size at hand. MPI_COMM_NULL: the group is only planned
 * (backend/dry/dry.h); hy3_agree, hy3_allreduce_real and hy3_group_allgather then stay local, as if
 * all ranks were alike. */
struct hy3_group {
    MPI_Comm comm;
    int rank, size;
    int apart; /* of a planned group: ranks of the world from one member to the next */
};

/* Takes over `comm`. */
static inline struct hy3_group hy3_group_of(MPI_Comm comm)
{
    return (struct hy3_group){
        .comm = comm, .rank = hy3_rank(comm), .size = hy3_size(comm), .apart = 0};
}
