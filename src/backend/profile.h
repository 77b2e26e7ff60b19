/* SPDX-License-Identifier: Apache-2.0 */
/* profile.h - seconds of each kind of operation: a table around another that waits for the device
 * after every call.
 *
 * The times are longer than in a normal run, since nothing overlaps and every call waits; they show
 * where the time goes. */
#pragma once

#include "backend/backend.h"

/* What operations are summed up as. */
enum hy3_profile_kind {
    HY3_PROFILE_PRODUCTS,
    HY3_PROFILE_GROUPED,
    HY3_PROFILE_GROUPED_WEIGHTS,
    HY3_PROFILE_ATTENTION_FORWARD,
    HY3_PROFILE_ATTENTION_BACKWARD,
    HY3_PROFILE_ELEMENTWISE,
    HY3_PROFILE_ADAMW,
    HY3_PROFILE_COPIES,
    HY3_PROFILE_SUMS, /* over ranks, and gathers */
    HY3_PROFILE_EXCHANGE,
    HY3_PROFILE_KINDS
};

/* Local. The table around `backend`, static. Counts from now on, in seconds of that clock, until
 * hy3_profile_end; a second one may begin and end within the first. */
const struct hy3_backend *hy3_profile_begin(const struct hy3_backend *backend,
                                            double (*clock)(void));
void hy3_profile_end(void);

/* Local. Seconds of each kind since the last reset. */
void hy3_profile_seconds(double kinds[HY3_PROFILE_KINDS]);

/* Local. Forgets what was counted: the start of a run is not of interest. */
void hy3_profile_reset(void);

/* Local. Logs a line an operation, the longest first: calls, seconds, share of all seconds since
 * the last reset; TFLOP/s of products and attention, GB/s of copies. Nothing without
 * hy3_profile_begin. */
void hy3_profile_log(void);
