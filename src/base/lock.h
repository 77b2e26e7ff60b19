/* SPDX-License-Identifier: Apache-2.0 */
/* lock.h - one process at a time: a lock file with its holder and a heartbeat, for file systems
 * that may have no locks (flock, fcntl) and are shared by hosts.
 *
 * Invariants
 *  1. A lock appears by link(2) of a completely written file (where there are no links: by
 *     O_EXCL), so of two that ask for it one gets it.
 *  2. An existing lock file is replaced or removed only by the process that holds its guard: a file
 *     PATH.NONCE, named after the lock file's nonce, that appears in the same way. So of many that
 *     take over a lock one does.
 *  3. A guard is itself a lock: it has a holder, and is taken over like one. Whoever has got it
 *     reads the lock once more: with another nonce in it, it was replaced before, and the guard
 *     stands for nothing.
 *  4. A lock is taken over when its holder is known to have ended, or is of another host and its
 *     heartbeat has not changed for HY3_LOCK_SECONDS (an environment variable; 90) of this
 *     process's clock. A holder that only slept finds out (hy3_lock_check).
 * A lock that is held beats by a thread of its own, whatever the process does. */
#pragma once

#include "base/file.h"
#include "base/lock_holder.h"

struct hy3_lock; /* opaque: held by this process */

enum { HY3_LOCK_DEPTH = 4 }; /* guards of guards */

struct hy3_lock_request {
    char path[HY3_PATH_MAX];
    bool waits; /* until the lock is free; else one that is held refuses. Such locks are not taken
                 * from a program of the same start of the job, which may have several */

    struct { /* of the lock and its guards: what was seen, and since when */
        char nonce[24];
        int64_t beat;
        double since; /* hy3_seconds() */
        bool lives;   /* it has changed */
    } watch[HY3_LOCK_DEPTH];

    bool has_spoken; /* the line that says what is waited for */
};

/* Local. Prepares a request for the lock file `path`, whose directory exists. */
hy3_status hy3_lock_request(const char *path, bool waits, struct hy3_lock_request *out);

/* Local. Asks once, without waiting: *out is the lock, or NULL: to be asked again after a moment.
 * Errors: HY3_EUSAGE: another process holds it (with its description, and what to do); HY3_EIO. The
 * caller owns *out (hy3_lock_close). */
hy3_status hy3_lock_ask(struct hy3_lock_request *request, struct hy3_lock **out);

/* Local. Whether the lock is still this process's. Errors: HY3_EIO when it is gone or another has
 * taken it over. NULL is fine. */
hy3_status hy3_lock_check(const struct hy3_lock *lock);

/* Local. Ends the heartbeat and removes the file, unless another has taken it over. */
void hy3_lock_close(struct hy3_lock *lock);
