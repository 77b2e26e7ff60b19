/* SPDX-License-Identifier: Apache-2.0 */
/* worker.h - a thread for blocking calls, so that its owner waits for them as for everything else:
 * with the deadline and the heartbeat of wait.h, and without occupying a core. */
#pragma once

#include "base/error.h"

struct hy3_worker; /* opaque */

typedef hy3_status (*hy3_work)(void *context);

/* Local. The caller owns *out and alone uses it. Where MPI does not let another thread call it,
 * work is done by the owner itself, in hy3_worker_begin. */
hy3_status hy3_worker_create(struct hy3_worker **out);

/* Local. Waits for the work under way, whose status is lost. */
void hy3_worker_free(struct hy3_worker *worker);

/* Local. Begins a piece of work; the one before must have been ended. context: kept until the
 * end. */
void hy3_worker_begin(struct hy3_worker *worker, hy3_work work, void *context);

/* Local. The status and the error text of the work under way, HY3_OK if there is none. The wait is
 * hy3_wait_own: a piece of work that outlasts the deadline ends the job. */
hy3_status hy3_worker_end(struct hy3_worker *worker, const char *phase);
