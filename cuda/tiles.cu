/* SPDX-License-Identifier: Apache-2.0 */
/* tiles.cu - cuts the samples of an attention call into tiles, so that kernels search for
 * nothing. */
#include "cuda/tiles.h"

#include <stdlib.h>
#include <string.h>

static int tiles_of(int64_t n, int64_t rows)
{
    return (int)((n + rows - 1) / rows);
}

/* Which list of key tiles a segment's are in: the second one of a sample sees keys of the first. */
static int list_of(const struct hy3_attention *a, int64_t s)
{
    return s > 0 && a->kv_first[s] == a->kv_first[s - 1] && a->kv_end[s - 1] > a->kv_first[s - 1];
}

static int smaller(int64_t a, int64_t b)
{
    return (int)(a < b ? a : b);
}

static void cut_queries(const struct hy3_attention *a, int64_t rows, struct hy3_query_tile *tile)
{
    for (int64_t s = 0; s < a->S; s++) {
        int64_t n = a->q_starts[s + 1] - a->q_starts[s], keys = a->kv_end[s] - a->kv_first[s];

        for (int64_t first = 0; first < n; first += rows, tile++) {
            tile->q_first = (int)(a->q_starts[s] + first);
            tile->rows = smaller(rows, n - first);
            tile->kv_first = (int)a->kv_first[s];
            tile->seen = (int)(keys - n + first + 1);
        }
    }
}

static void cut_keys(const struct hy3_attention *a, int64_t rows, int list,
                     struct hy3_key_tile *tile)
{
    for (int64_t s = 0; s < a->S; s++) {
        int64_t n = a->q_starts[s + 1] - a->q_starts[s], keys = a->kv_end[s] - a->kv_first[s];

        if (list_of(a, s) != list)
            continue;
        for (int64_t first = 0; first < keys; first += rows, tile++) {
            int64_t query = first > keys - n ? first - (keys - n) : 0; /* the first that sees any */

            tile->kv_first = (int)(a->kv_first[s] + first);
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
    size_t bytes = query_bytes + (size_t)(t->keys[0] + t->keys[1]) * sizeof *t->key[0];
    hy3_status status;
    struct hy3_key_tile *key;
    char *host, *device;

    HY3_TRY(hy3_cuda_calloc(bytes, &host));
    key = (struct hy3_key_tile *)(host + query_bytes);
    cut_queries(a, t->rows, (struct hy3_query_tile *)host);
    cut_keys(a, t->rows, 0, key);
    cut_keys(a, t->rows, 1, key + t->keys[0]);
    status = hy3_cuda_upload(s, HY3_SLOT_TILES, host, bytes, &device);
    free(host);
    t->query = (const struct hy3_query_tile *)device;
    t->key[0] = (const struct hy3_key_tile *)(device + query_bytes);
    t->key[1] = t->key[0] + t->keys[0];
    return status;
}

hy3_status hy3_tiles_find(struct hy3_stream *stream, const struct hy3_attention *a, int64_t rows,
                          const struct hy3_tiles **out)
{
    struct hy3_stream *s = hy3_cuda_stream(stream);
    size_t n = (size_t)a->S, bytes = n * sizeof *a->q_starts;
    struct hy3_tiles *t = s->tiles;
    int64_t *starts;

    if (!t)
        HY3_TRY(hy3_cuda_calloc(sizeof *t, &t));
    *out = s->tiles = t;
    if (t->starts && t->S == a->S && t->rows == rows &&
        memcmp(t->starts, a->kv_first, bytes) == 0 &&
        memcmp(t->starts + n, a->kv_end, bytes) == 0 &&
        memcmp(t->starts + 2 * n, a->q_starts, bytes + sizeof *a->q_starts) == 0)
        return HY3_OK;
    free(t->starts);
    t->starts = NULL;
    t->rows = rows;
    t->queries = t->keys[0] = t->keys[1] = 0;
    for (int64_t i = 0; i < a->S; i++) {
        t->queries += tiles_of(a->q_starts[i + 1] - a->q_starts[i], rows);
        t->keys[list_of(a, i)] += tiles_of(a->kv_end[i] - a->kv_first[i], rows);
    }
    HY3_TRY(upload(s, a, t));
    HY3_TRY(hy3_cuda_calloc(3 * bytes + sizeof *starts, &starts));
    memcpy(starts, a->kv_first, bytes);
    memcpy(starts + n, a->kv_end, bytes);
    memcpy(starts + 2 * n, a->q_starts, bytes + sizeof *starts);
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
