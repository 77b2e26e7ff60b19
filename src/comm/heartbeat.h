/* SPDX-License-Identifier: Apache-2.0 */
/* heartbeat.h - where each rank is, kept where the other ranks of its node can read it.
 *
 * When a wait gives up, the rank that does tells not only where it stands itself but which rank of
 * its node is behind. Before hy3_heartbeat_open, and for other threads than the one that called it,
 * everything here does nothing. */
#ifndef HY3_COMM_HEARTBEAT_H
#define HY3_COMM_HEARTBEAT_H

#include <mpi.h>

#include <stddef.h>
#include <stdint.h>

/* Collective on `comm`. One record for each rank, in memory shared by the ranks of a node. */
void hy3_heartbeat_open(MPI_Comm comm);

/* Collective. */
void hy3_heartbeat_close(void);

/* Local. What this rank does from now on: `work` is a literal, "forward"; step from 1, 0: none;
 * layer -1: none. */
void hy3_heartbeat(const char *work, int64_t step, int layer);

/* Local. Another wait of this rank begins; `phase` is a literal. */
void hy3_heartbeat_wait(const char *phase);

/* Local. The wait goes on: this rank lives. */
void hy3_heartbeat_alive(void);

/* Local. This rank's place, and the ranks of the node that are behind it or give no sign of life,
 * as text. */
void hy3_heartbeat_describe(char *out, size_t size);

/* Local. Whether this rank is the first of its node to ask: it speaks for all. True without
 * records. */
int hy3_heartbeat_claim(void);

#endif
