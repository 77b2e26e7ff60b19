/* SPDX-License-Identifier: Apache-2.0 */
/* comm.h - start and finish of an MPI program, rank and size.
 *
 * hy3_start comes first in main and hy3_finish last. Between them every phase is local work, then
 * agreement (agree.h), then collective work; every wait is hy3_wait (wait.h). */
#ifndef HY3_COMM_COMM_H
#define HY3_COMM_COMM_H

#include "base/error.h"

#include <mpi.h>

/* Collective on MPI_COMM_WORLD. Initialises MPI (MPI_THREAD_MULTIPLE where granted), the log and
 * the number of OpenMP threads of this rank: OMP_NUM_THREADS if set, else its share of the CPUs it
 * may run on. Errors: HY3_EUSAGE when the launcher started several tasks but MPI sees single ranks
 * (wrong --mpi). */
hy3_status hy3_start(int *argc, char ***argv, const char *program);

/* Collective on MPI_COMM_WORLD. Rank 0 prints the one error message; MPI_Finalize; returns the exit
 * code. `status` must have been agreed on. */
int hy3_finish(hy3_status status);

/* Local. Ends the whole job at once with the thread's error text and this status's exit code: for a
 * failure on one rank inside collective work, where the others cannot be told. phase: a participle,
 * "training step 12". */
_Noreturn void hy3_abort(hy3_status status, const char *phase);

/* Local. Ends the whole job at once with this status's exit code, after its message has been
 * written to standard error. */
_Noreturn void hy3_end_job(hy3_status status);

int hy3_rank(MPI_Comm comm);
int hy3_size(MPI_Comm comm);

/* A communicator with its rank and size at hand. MPI_COMM_NULL: the group is only planned
 * (backend/dry/dry.h); hy3_agree, hy3_allreduce_real and hy3_group_allgather then stay local, as if
 * all ranks were alike. */
struct hy3_group {
    MPI_Comm comm;
    int rank, size;
};

/* Takes over `comm`. */
static inline struct hy3_group hy3_group_of(MPI_Comm comm)
{
    return (struct hy3_group){comm, hy3_rank(comm), hy3_size(comm)};
}

/* Threads this rank computes with. */
int hy3_threads(void);

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

#endif
