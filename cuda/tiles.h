/* SPDX-License-Identifier: Apache-2.0 */
/* tiles.h - the work of attention, cut by the host, so that kernels search for nothing. */
#ifndef HY3_CUDA_TILES_H
#define HY3_CUDA_TILES_H

enum { HY3_TILE = 64 };

/* `rows` queries from row q_first on; query i of them sees the keys kv_first .. kv_first + seen + i
 * - 1. */
struct hy3_query_tile {
    int q_first, rows, kv_first, seen;
};

/* `rows` keys from row kv_first on, and the q_count queries from q_first on; query j of these sees
 * key i of those if i <= before + j. */
struct hy3_key_tile {
    int kv_first, rows, q_first, q_count, before;
};

#endif
