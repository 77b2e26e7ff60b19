/* SPDX-License-Identifier: Apache-2.0 */
/* heartbeat.h - the position of each rank, in memory that the ranks of its node share.
 *
 * While open it observes the waits (wait.h): a rank whose wait times out reports its own position,
 * which ranks of its node are behind, and what other nodes answer about theirs (inquiry.h). Before
 * hy3_heartbeat_open, and on threads other than the one that called it, nothing is recorded. */
#pragma once

#include "base/error.h"

#include <mpi.h>

/* Collective on `comm`. Errors: HY3_ENOMEM. hy3_heartbeat_close, collective too, is due also after
 * an error. */
hy3_status hy3_heartbeat_open(MPI_Comm comm);
void hy3_heartbeat_close(void);

/* Local. What this rank is doing: `work` is a literal, "forward"; step from 1, 0: none;
 * layer -1: none. */
void hy3_heartbeat(const char *work, int64_t step, int layer);
