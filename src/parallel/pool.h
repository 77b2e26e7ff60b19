/* SPDX-License-Identifier: Apache-2.0 */
/* pool.h - device buffers that are reused: allocated during the first step, taken and given back in
 * all others. */
#pragma once

#include "backend/backend.h"

struct hy3_pool {
    const struct hy3_device *device;
    struct hy3_pool_buffer *buffers;
    size_t count, capacity;
    size_t bytes; /* allocated so far */
};

/* Local. A buffer of exactly `bytes` bytes, with whatever its last user left in it. Errors:
 * HY3_ENOMEM. */
hy3_status hy3_pool_take(struct hy3_pool *pool, size_t bytes, void *out);

/* Local. NULL is fine. */
void hy3_pool_give(struct hy3_pool *pool, const void *memory);

void hy3_pool_close(struct hy3_pool *pool);
