/* SPDX-License-Identifier: Apache-2.0 */
/* comm.h - small host messages between ranks. */
#pragma once

#include "base/error.h"
#include "comm/group.h"

/* Collective on `comm`. Broadcasts `bytes` from `root`, in pieces if need be. */
void hy3_broadcast(MPI_Comm comm, int root, void *data, size_t bytes, const char *phase);

/* Collective on `comm`. In-place sum, minimum or maximum of `count` values over the ranks. */
void hy3_allreduce_int(MPI_Comm comm, int64_t *values, int count, MPI_Op op, const char *phase);
void hy3_allreduce_real(MPI_Comm comm, double *values, int count, MPI_Op op, const char *phase);

/* Collective on `comm`. Every rank's `count` values in `all` [size,count], by rank. */
void hy3_allgather_ints(MPI_Comm comm, const int64_t *values, int count, int64_t *all,
                        const char *phase);

void hy3_group_allgather(const struct hy3_group *group, const int64_t *values, int count,
                         int64_t *all, const char *phase);

/* As above for one value. */
void hy3_allgather_int(MPI_Comm comm, int64_t value, int64_t *all, const char *phase);

/* Collective on `comm`. Returns when every rank has come. */
void hy3_barrier(MPI_Comm comm, const char *phase);
