/* SPDX-License-Identifier: Apache-2.0 */
/* dummy_weights.h - random weights in the place of a model's, for measuring time and memory. */
#pragma once

#include "parallel/store.h"

/* Local. Sets the model's own weights in the store: matrices uniform with a standard deviation of
 * 0.02, made on the device; vectors one; buffers are left as they are. A value depends on seed,
 * tensor and element alone, so ranks that hold the same weights, in whatever layout, agree. Errors:
 * HY3_ENOMEM, HY3_STOPPED, those of the device. */
hy3_status hy3_dummy_weights(const struct hy3_backend *backend, struct hy3_store *store,
                             uint64_t seed);
