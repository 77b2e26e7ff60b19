/* SPDX-License-Identifier: Apache-2.0 */
/* inquiry.h - asks the other nodes where their ranks stand, once a wait has failed.
 *
 * The first rank of each node answers, on its watchdog's thread (watchdog.h), so also while its
 * main thread is stuck in a driver. Nothing is sent before something has failed. */
#pragma once

#include "base/error.h"

#include <mpi.h>

/* What a node knows of itself. */
struct hy3_inquiry_node {
    /* Gives the right to report to node `node`, unless another one has it; who has it. */
    int (*claim)(int node);
    /* Where the ranks of this node stand that are behind `waits` waits or silent; "": none. */
    void (*behind)(int64_t waits, char *out, size_t size);
};

/* Collective on `comm`. node: this node's part of it. Without MPI_THREAD_MULTIPLE no other node is
 * asked. Errors: HY3_ENOMEM. Ends with hy3_inquiry_close, also after an error. */
hy3_status hy3_inquiry_open(MPI_Comm comm, MPI_Comm node, struct hy3_inquiry_node self);
void hy3_inquiry_close(void);

/* Local. The number of this rank's node. */
int hy3_inquiry_own(void);

/* Local. Writes to `out` which ranks of other nodes are behind `waits` waits, silent, or do not
 * answer within two seconds. Returns false if another node reports. May be called by any thread. */
bool hy3_inquiry_ask(int64_t waits, char *out, size_t size);
