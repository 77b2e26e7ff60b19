/* SPDX-License-Identifier: Apache-2.0 */
/* large.h - collectives whose counts may pass 2^31.
 *
 * MPI 4 has functions for them; with an earlier MPI they are made of calls with int counts. The two
 * may add in another order. */
#pragma once

#include "base/dtype.h"

#include <mpi.h>

#include <stddef.h>
#include <stdint.h>

/* Collective on `comm`. Begins: data [count] becomes its sum over the ranks. The request must be
 * waited for (wait.h); phase: of what this call may wait for itself. */
void hy3_large_allreduce(MPI_Comm comm, float *data, int64_t count, MPI_Request *request,
                         const char *phase);

/* Collective on `comm`. Begins: data [ranks,bytes] becomes whole, each rank brings data[rank]. The
 * request must be waited for. */
void hy3_large_allgather(MPI_Comm comm, void *data, int64_t bytes, MPI_Request *request);

/* Collective on `comm`. Begins: own [count] = the sum over ranks of data[rank], data [ranks,count],
 * both fp32 or both bf16: then each sum of two is rounded. The request must be waited for; phase:
 * of what this call may wait for itself. */
void hy3_large_reduce_scatter(MPI_Comm comm, const void *data, void *own, int64_t count,
                              hy3_dtype dtype, MPI_Request *request, const char *phase);

/* Who gives what to whom: elements of `size` bytes, counts and places in elements, each of send and
 * then of receive, [2,ranks]. */
struct hy3_large_exchange {
    int64_t size;
    const void *send;
    void *receive;
    const MPI_Count *counts;
    const MPI_Aint *places;
};

/* Collective on `comm`. */
void hy3_large_alltoall(MPI_Comm comm, const struct hy3_large_exchange *exchange,
                        const char *phase);

/* Local, for tests: the same on all ranks. 0 (the default): MPI 4's functions, where they are; else
 * calls with counts of at most this, whatever the MPI. */
void hy3_large_limit(int64_t most);
