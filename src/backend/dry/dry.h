/* SPDX-License-Identifier: Apache-2.0 */
/* dry.h - a backend that computes nothing: it hands out addresses without memory behind them and
 * counts what would be allocated and sent. A run on it is a plan: its numbers are the program's
 * own. With the rates of a device its operations take time on a timeline.
 *
 * Groups on it have no communicator (MPI_COMM_NULL): agreement and small messages then stay local.
 * Routing is even. One plan at a time. */
#pragma once

#include "backend/backend.h"
#include "backend/dry/timeline.h"

struct hy3_dry_counts {
    size_t device, device_peak, host, host_peak; /* bytes allocated */
    double largest_sum; /* bytes of the largest tensor that is summed over ranks at once */
    /* bytes that this rank sends, for the best algorithm of each collective */
    double reduced, gathered, scattered, exchanged;
    double copied; /* bytes between device and host memory */
};

/* Local. The table; counts and clocks start from zero. */
const struct hy3_backend *hy3_dry_backend(const struct hy3_timeline_options *options);

struct hy3_dry_counts hy3_dry_counts(void);

/* Local. Sets the counts of traffic to zero. */
void hy3_dry_forget_traffic(void);
