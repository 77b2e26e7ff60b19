/* SPDX-License-Identifier: Apache-2.0 */
/* arena.h - a stack of memory of any kind, handed out in pieces and given back to a mark.
 *
 * The owner brings the memory; the arena only does arithmetic on addresses, so it serves host and
 * device memory. Without memory (base NULL) it counts: running the same code once that way gives
 * the size to allocate, and the planner's numbers are the program's own. */
#pragma once

#include "base/error.h"

struct hy3_arena {
    char *base;  /* NULL: count only */
    size_t size; /* bytes at base */
    size_t used, peak;
};

/* Local. `count * size` bytes, 64-byte aligned, uninitialised; NULL while counting. Running past
 * the end is our own fault (HY3_BUG): the owner has sized the arena by counting. */
void *hy3_arena_take(struct hy3_arena *arena, int64_t count, size_t size);

static inline size_t hy3_arena_mark(const struct hy3_arena *arena)
{
    return arena->used;
}

/* Gives back everything taken since the mark. */
static inline void hy3_arena_reset(struct hy3_arena *arena, size_t mark)
{
    arena->used = mark;
}
