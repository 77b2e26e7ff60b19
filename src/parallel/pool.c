/* SPDX-License-Identifier: Apache-2.0 */
/* pool.c - a list of buffers. Few sizes occur, since most units are alike, so a search is short. */
#include "parallel/pool.h"

#include "base/memory.h"

struct hy3_pool_buffer {
    void *memory;
    size_t bytes;
    bool taken;
};

hy3_status hy3_pool_take(struct hy3_pool *pool, size_t bytes, void *out)
{
    struct hy3_pool_buffer *found = NULL;

    for (size_t i = 0; i < pool->count && !found; i++)
        if (!pool->buffers[i].taken && pool->buffers[i].bytes == bytes)
            found = &pool->buffers[i];
    if (!found) {
        HY3_TRY(hy3_grow(&pool->buffers, &pool->capacity, pool->count + 1, sizeof *pool->buffers));
        found = &pool->buffers[pool->count];
        HY3_TRY(pool->device->alloc(bytes, &found->memory));
        found->bytes = bytes;
        pool->bytes += bytes;
        pool->count++;
    }
    found->taken = true;
    memcpy(out, &found->memory, sizeof found->memory);
    return HY3_OK;
}

void hy3_pool_give(struct hy3_pool *pool, const void *memory)
{
    for (size_t i = 0; memory && i < pool->count; i++)
        if (pool->buffers[i].memory == memory)
            pool->buffers[i].taken = false;
}

void hy3_pool_close(struct hy3_pool *pool)
{
    for (size_t i = 0; i < pool->count; i++)
        pool->device->free(pool->buffers[i].memory);
    hy3_free(pool->buffers);
    *pool = (struct hy3_pool){0};
}
