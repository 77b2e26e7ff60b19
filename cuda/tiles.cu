/* SPDX-License-Identifier: Apache-2.0 */
/* tiles.cu - cuts the samples of an attention call into tiles, so that kernels search for
 * nothing. */
#include "cuda/tiles.h"

#include <stdlib.h>
#include <string.h>

static int tiles_of(const int64_t *starts, int64_t S, int64_t rows)
{
    int64_t tiles = 0;

    for (int64_t i = 0; i < S; i++)
        tiles += (starts[i + 1] - starts[i] + rows - 1) / rows;
    return (int)tiles;
}

static int smaller(int64_t a, int64_t b)
{
    return (int)(a < b ? a : b);
}

static void cut_queries(const struct hy3_attention *a, int64_t rows, struct hy3_query_tile *tile)
{
    for (int64_t s = 0; s < a->S; s++) {
        int64_t n = a->q_starts[s + 1] - a->q_starts[s],
                keys = a->kv_starts[s + 1] - a->kv_starts[s];

        for (int64_t first = 0; first < n; first += rows, tile++) {
            tile->q_first = (int)(a->q_starts[s] + first);
            tile->rows = smaller(rows, n - first);
            tile->kv_first = (int)a->kv_starts[s];
            tile->seen = (int)(keys - n + first + 1);
        }
    }
}

static void cut_keys(const struct hy3_attention *a, int64_t rows, struct hy3_key_tile *tile)
{
    for (int64_t s = 0; s < a->S; s++) {
        int64_t n = a->q_starts[s + 1] - a->q_starts[s],
                keys = a->kv_starts[s + 1] - a->kv_starts[s];

        for (int64_t first = 0; first < keys; first += rows, tile++) {
            int64_t query = first > keys - n ? first - (keys - n) : 0; /* the first that sees any */

            tile->kv_first = (int)(a->kv_starts[s] + first);
            tile->rows = smaller(rows, keys - first);
            tile->q_first = (int)(a->q_starts[s] + query);
            tile->q_count = (int)(n - query);
            tile->before = (int)(keys - n + query - first);
        }
    }
}

static hy3_status upload(struct hy3_stream *s, const struct hy3_attention *a, struct hy3_tiles *t)
{
    size_t query_bytes = (size_t)t->queries * sizeof *t->query;
    size_t bytes = query_bytes + (size_t)t->keys * sizeof *t->key;
    hy3_status status;
    char *host, *device;

    HY3_TRY(hy3_cuda_calloc(bytes, &host));
    cut_queries(a, t->rows, (struct hy3_query_tile *)host);
    cut_keys(a, t->rows, (struct hy3_key_tile *)(host + query_bytes));
    status = hy3_cuda_upload(s, HY3_SLOT_TILES, host, bytes, &device);
    free(host);
    t->query = (const struct hy3_query_tile *)device;
    t->key = (const struct hy3_key_tile *)(device + query_bytes);
    return status;
}

hy3_status hy3_tiles_find(struct hy3_stream *stream, const struct hy3_attention *a, int64_t rows,
                          const struct hy3_tiles **out)
{
    struct hy3_stream *s = hy3_cuda_stream(stream);
    size_t n = (size_t)a->S + 1, bytes = n * sizeof *a->q_starts;
    struct hy3_tiles *t = s->tiles;
    int64_t *starts;

    if (!t)
        HY3_TRY(hy3_cuda_calloc(sizeof *t, &t));
    *out = s->tiles = t;
    if (t->starts && t->S == a->S && t->rows == rows &&
        memcmp(t->starts, a->q_starts, bytes) == 0 &&
        memcmp(t->starts + n, a->kv_starts, bytes) == 0)
        return HY3_OK;
    free(t->starts);
    t->starts = NULL;
    t->rows = rows;
    t->queries = tiles_of(a->q_starts, a->S, rows);
    t->keys = tiles_of(a->kv_starts, a->S, rows);
    HY3_TRY(upload(s, a, t));
    HY3_TRY(hy3_cuda_calloc(2 * bytes, &starts));
    memcpy(starts, a->q_starts, bytes);
    memcpy(starts + n, a->kv_starts, bytes);
    t->starts = starts;
    t->S = a->S;
    return HY3_OK;
}

void hy3_tiles_free(struct hy3_tiles *t)
{
    if (t)
        free(t->starts);
    free(t);
}
