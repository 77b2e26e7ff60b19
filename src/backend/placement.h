/* SPDX-License-Identifier: Apache-2.0 */
/* placement.h - where a long-lived array lies: device memory, host memory, or a file on a node's
 * own disk.
 *
 * Offloading is a choice of placement; whoever uses the array copies to the device what it computes
 * with. */
#pragma once

#include "backend/backend.h"

struct hy3_placement {
    bool host;             /* pinned host memory instead of the device's */
    const char *directory; /* with host: memory-mapped files here instead; NULL: memory */
};

/* How much of a series of arrays goes to host memory. */
struct hy3_offloading {
    double ratio;          /* of their bytes, 0 to 1 */
    const char *directory; /* see hy3_placement */
};

/* Local. The placement of the next array of the series: those in host memory are spread evenly over
 * it, so that copies of them hide behind the work with the others. *owed: 0 before the first. */
struct hy3_placement hy3_offloading_next(const struct hy3_offloading *offload, size_t bytes,
                                         double *owed);

/* Local. Zeroed memory for `bytes` bytes. A file has no name: its space comes back when the program
 * ends, however it ends. The caller owns *out (hy3_placement_free with the same placement and
 * size). Errors: HY3_ENOMEM, HY3_EIO naming the directory. */
hy3_status hy3_placement_alloc(const struct hy3_device *device,
                               const struct hy3_placement *placement, size_t bytes, void *out);
void hy3_placement_free(const struct hy3_device *device, const struct hy3_placement *placement,
                        size_t bytes, void *memory);
