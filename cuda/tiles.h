/* SPDX-License-Identifier: Apache-2.0 */
/* tiles.h - the work lists of attention: tiles of queries and of keys, cut by the host and cached
 * on the device. */
#pragma once

#include "cuda/cuda.h"

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

struct hy3_tiles {
    int64_t rows;                       /* of a tile, at most */
    int queries, keys[2];               /* tiles of each kind */
    const struct hy3_query_tile *query; /* device [queries] */
    /* device [keys] each; the second list has the keys of a sample's second segment */
    const struct hy3_key_tile *key[2];
    /* what they were cut for */
    int64_t S, *starts; /* host: kv_first, kv_end, q_starts; NULL: nothing yet */
};

/* Tiles of `rows` rows for the samples of `a`, on the device. They are uploaded unless they are
 * those of the stream's last call: the layers of a micro-batch share them. *out is valid until the
 * stream's next call. */
hy3_status hy3_tiles_find(struct hy3_stream *stream, const struct hy3_attention *a, int64_t rows,
                          const struct hy3_tiles **out);
