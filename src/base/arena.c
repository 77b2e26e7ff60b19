/* SPDX-License-Identifier: Apache-2.0 */
/* arena.c - pieces of a stack of memory. */
#include "base/arena.h"

void *hy3_arena_take(struct hy3_arena *arena, int64_t count, size_t size)
{
    size_t bytes = ((size_t)count * size + 63) / 64 * 64;
    char *piece = arena->base ? arena->base + arena->used : NULL;

    HY3_ASSERT(count >= 0);
    if (arena->base && bytes > arena->size - arena->used)
        HY3_BUG("the workspace of %zu bytes is too small for %zu more", arena->size, bytes);
    arena->used += bytes;
    if (arena->used > arena->peak)
        arena->peak = arena->used;
    return piece;
}
