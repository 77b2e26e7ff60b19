/* SPDX-License-Identifier: Apache-2.0 */
/* watchdog.h - a thread that ends the job where the main thread cannot: while it is inside a call
 * of a driver or of a library that waits by itself and does not return.
 *
 * Waits of our own are polled and have their deadline (wait.h). A driver may wait too: for room in
 * a launch queue, for the device before it frees memory. If the device or the network hangs, such a
 * call never returns; after ddp_timeout the watchdog reports the call and ends the job. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* Local, cheap. The calling thread is about to make a call that may not return, and has come back.
 * call, file: literals. On threads other than the one that called hy3_watchdog_start they do
 * nothing. */
void hy3_watchdog_enter(const char *call, const char *file, int line);
void hy3_watchdog_leave(void);

/* Local. Starts the thread, once, to watch the calling thread. It ends with the process. */
void hy3_watchdog_start(void);

/* Local. What the thread does now and then besides; NULL: nothing. Starts the thread. What was
 * there before is no longer under way when it returns. */
void hy3_watchdog_chore(void (*chore)(void));

/* Local. What the thread calls while the watched one has been in a call for a moment (its name,
 * "cudaFree (device.cu line 44)"), and once when it is back (NULL). As above. */
void hy3_watchdog_tell(void (*tell)(const char *call));
