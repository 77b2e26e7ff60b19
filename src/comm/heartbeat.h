/* SPDX-License-Identifier: Apache-2.0 */
/* heartbeat.h - the position of each rank, in memory that the ranks of its node share.
 *
 * While open it observes the waits (wait.h): a rank whose wait times out reports its own position
 * and which ranks of its node are behind. Before hy3_heartbeat_open, and on threads other than the
 * one that called it, nothing is recorded. */
#pragma once

#include <mpi.h>

#include <stdint.h>

/* Collective on `comm`. */
void hy3_heartbeat_open(MPI_Comm comm);
void hy3_heartbeat_close(void);

/* Local. What this rank is doing: `work` is a literal, "forward"; step from 1, 0: none;
 * layer -1: none. */
void hy3_heartbeat(const char *work, int64_t step, int layer);
