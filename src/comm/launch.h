/* SPDX-License-Identifier: Apache-2.0 */
/* launch.h - the start of an MPI program: hy3_start comes first in main, hy3_finish (end.h) last.
 *
 * Between them every phase is local work, then agreement (agree.h), then collective work; every
 * wait is hy3_wait (wait.h). */
#pragma once

#include "base/error.h"

/* Collective on MPI_COMM_WORLD. Initialises MPI (MPI_THREAD_MULTIPLE where granted), the log and
 * the number of OpenMP threads of this rank: OMP_NUM_THREADS if set, else its share of the CPUs it
 * may run on. Errors: HY3_EUSAGE when the launcher started several tasks but MPI sees single ranks
 * (wrong --mpi). */
hy3_status hy3_start(int *argc, char ***argv, const char *program);

/* Threads this rank computes with. */
int hy3_threads(void);
