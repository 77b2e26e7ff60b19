/* SPDX-License-Identifier: Apache-2.0 */
/* profile.h - seconds of each kind of operation: a table around another that waits for the device
 * after every call.
 *
 * The times are longer than in a normal run, since nothing overlaps and every call waits; they show
 * where the time goes. */
#pragma once

#include "backend/backend.h"

/* Local. The table around `backend`; static, one at a time. Counts from now on. */
const struct hy3_backend *hy3_profile_begin(const struct hy3_backend *backend);

/* Local. Forgets what was counted: the start of a run is not of interest. */
void hy3_profile_reset(void);

/* Local. Logs a line an operation, the longest first: calls, seconds, share of all seconds since
 * the last reset; TFLOP/s of products and attention, GB/s of copies. Nothing without
 * hy3_profile_begin. */
void hy3_profile_log(void);
