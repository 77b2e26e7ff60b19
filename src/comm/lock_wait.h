/* SPDX-License-Identifier: Apache-2.0 */
/* lock_wait.h - a lock (base/lock.h) of a whole job: rank 0 asks for it, all ranks wait. */
#pragma once

#include "base/lock.h"

#include <mpi.h>

/* Collective on `comm`. Gets the lock file `path`. waits: until it is free, however long that
 * takes; else HY3_EUSAGE when another program holds it, and a wait only where its heartbeat must
 * show that it does. Rank 0 owns *out (hy3_lock_close), the others get NULL. Errors: also HY3_EIO;
 * HY3_STOPPED when a signal came while waiting. */
hy3_status hy3_lock_wait(MPI_Comm comm, const char *path, bool waits, struct hy3_lock **out);
