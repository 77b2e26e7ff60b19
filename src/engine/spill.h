/* SPDX-License-Identifier: Apache-2.0 */
/* spill.h - an array of each layer that the forward pass writes and the backward pass reads, in
 * host memory meanwhile (offload_activations).
 *
 * The device has HY3_SPILL_SLOTS of them: layer i's in slot i modulo that number. A copy to the
 * host begins when its layer is done, the copy back one layer before it is needed; both are on a
 * stream of their own, beside the computation. The arrays of the last two layers stay where they
 * are. */
#pragma once

#include "backend/backend.h"

enum { HY3_SPILL_SLOTS = 3 };

struct hy3_spill {
    const struct hy3_device *device; /* NULL: everything stays on the device, nothing is done */
    struct hy3_stream *stream;       /* of the copies */
    struct hy3_event *ready;
    struct hy3_event *copied[HY3_SPILL_SLOTS];
    char *host; /* [last-first,bytes] pinned */
    size_t bytes;
    int first, last; /* layers that are copied: first .. last-1 */
};

/* Local. Arrays of at most `bytes` bytes, of the layers from `first` (the lowest trained) on.
 * The caller closes it, also after an error. Errors: HY3_ENOMEM. */
hy3_status hy3_spill_open(const struct hy3_device *device, int first, int layers, size_t bytes,
                          struct hy3_spill *spill);
void hy3_spill_close(struct hy3_spill *spill);

/* Local. Before layer `i` writes its array: the stream waits until the slot is free. */
hy3_status hy3_spill_take(struct hy3_spill *spill, struct hy3_stream *stream, int i);

/* Local. Layer `i` is done with its array: begins the copy to the host. */
hy3_status hy3_spill_give(struct hy3_spill *spill, struct hy3_stream *stream, int i,
                          const void *array, size_t bytes);

/* Local. The backward pass comes to layer `i`: its array is there; begins to bring the one below
 * back to `below`. */
hy3_status hy3_spill_return(struct hy3_spill *spill, struct hy3_stream *stream, int i, void *below,
                            size_t bytes);
