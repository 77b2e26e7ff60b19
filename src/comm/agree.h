/* SPDX-License-Identifier: Apache-2.0 */
/* agree.h - one status for all ranks. */
#pragma once

#include "base/error.h"

#include <mpi.h>

/* Collective on `comm`. Returns the worst of all statuses on every rank, and gives every rank the
 * text of the lowest rank that has it. One 8-byte reduction when all is well.
 * Whatever may fail on one rank alone ends here before anyone enters the next collective.
 * phase: a participle for the message, "reading the configuration"; it is named when another rank
 * than 0 failed */
hy3_status hy3_agree(MPI_Comm comm, hy3_status mine, const char *phase);

/* Collective on `comm`. As hy3_agree for what only all ranks together can undo, such as an open
 * file of MPI-IO: where it failed on some ranks and not on others, one that failed ends the job. */
hy3_status hy3_agree_together(MPI_Comm comm, hy3_status mine, const char *phase);

/* Local work, then agreement; on a failure of any rank all return, or go to the label `done`. */
#define HY3_AGREE(comm, call, phase)      HY3_TRY(hy3_agree((comm), (call), (phase)))
#define HY3_AGREE_DONE(comm, call, phase) HY3_TRY_DONE(hy3_agree((comm), (call), (phase)))
