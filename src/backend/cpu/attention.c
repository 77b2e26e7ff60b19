/* SPDX-License-Identifier: Apache-2.0 */
/* attention.c - causal attention of each sample in tiles of ROWS queries by ROWS keys.
 *
 * Forward: an item of work is (segment, query head, tile of queries); it walks over the tiles of
 * keys with a running maximum and sum (FlashAttention-2, algorithm 1). Backward: an item is
 * (sample, key-value head) with all query heads of its group and all segments of the sample, so dq,
 * dk and dv of an item belong to one thread and are summed in a fixed order. Tiles are fp32; their
 * products are loops.h's `tile`. Keys and values serve many queries, so they are brought into tile
 * form once, before the items. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <omp.h>

static const int64_t ROWS = 64;

/* D rounded up to whole vectors; the columns added are zero. */
static int64_t padded(int64_t D)
{
    return (D + 15) / 16 * 16;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t larger(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Rows first .. first+n of head `head` of a [T,heads,D] tensor into tile [ROWS,padded(D)], times
 * `factor`; the rest zero. */
static void load_tile(const void *tensor, hy3_dtype dtype, int64_t heads, int64_t D, int64_t head,
                      int64_t first, int64_t n, float factor, float *tile)
{
    int64_t width = padded(D);

    memset(tile, 0, (size_t)(ROWS * width) * sizeof *tile);
    for (int64_t i = 0; i < n; i++) {
        float buffer[D];
        const float *row = hy3_cpu_row(tensor, dtype, (first + i) * heads + head, D, buffer);

        hy3_cpu_loops->scale(row, factor, tile + i * width, D);
    }
}

/* tile [ROWS,width] as [width,ROWS] */
static void transpose(const float *tile, int64_t width, float *out)
{
    for (int64_t d = 0; d < width; d += 16)
        for (int64_t i = 0; i < ROWS; i++)
            for (int64_t j = 0; j < 16; j++)
                /* NOLINTNEXTLINE(clang-analyzer-core.NullDereference): allocated by pack_keys */
                out[(d + j) * ROWS + i] = tile[i * width + d + j];
}

/* Which tiles of keys there are. */
struct key_tiles {
    int64_t count;          /* over all samples */
    int64_t area;           /* floats of a tile */
    float *k, *kt, *v, *vt; /* [tiles,K] of [ROWS,width], or transposed; NULL: not wanted */
};

static int64_t tiles_of(int64_t rows)
{
    return (rows + ROWS - 1) / ROWS;
}

/* Whether no other segment sees more keys of the same sample. */
static bool is_last(const struct hy3_attention *a, int64_t segment)
{
    return segment + 1 == a->S || a->kv_first[segment + 1] != a->kv_first[segment];
}

/* Tiles of keys of a sample, at its last segment; 0 at others. */
static int64_t tiles_at(const struct hy3_attention *a, int64_t segment)
{
    return is_last(a, segment) ? tiles_of(a->kv_end[segment] - a->kv_first[segment]) : 0;
}

/* The number of the first tile of keys that a segment sees, the same for all of a sample. */
static int64_t first_tile(const struct hy3_attention *a, int64_t segment)
{
    int64_t tiles = 0;

    for (int64_t s = 0; s < segment; s++)
        tiles += tiles_at(a, s);
    return tiles;
}

static void pack_tile(const struct hy3_attention *a, const struct key_tiles *t, int64_t segment,
                      int64_t tile, int64_t head, int64_t number)
{
    int64_t first = tile * ROWS, width = padded(a->D), start = a->kv_first[segment];
    int64_t n = smaller(ROWS, a->kv_end[segment] - start - first);
    float buffer[t->area];
    float *k = t->k ? t->k + number * t->area : buffer;

    load_tile(a->k, a->dtype, a->K, a->D, head, start + first, n, 1, k);
    transpose(k, width, t->kt + number * t->area);
    if (t->v)
        load_tile(a->v, a->dtype, a->K, a->D, head, start + first, n, 1, t->v + number * t->area);
    if (t->vt) {
        load_tile(a->v, a->dtype, a->K, a->D, head, start + first, n, 1, buffer);
        transpose(buffer, width, t->vt + number * t->area);
    }
}

/* Keys (and values) of all samples and heads as tiles: [tiles,K] of them. */
static hy3_status pack_keys(const struct hy3_attention *a, bool backward, struct key_tiles *t)
{
    int64_t kinds = backward ? 3 : 2, floats;

    *t = (struct key_tiles){.count = first_tile(a, a->S), .area = ROWS * padded(a->D)};
    floats = t->count * a->K * t->area;
    HY3_TRY(hy3_cpu_scratch(HY3_SLOT_KEYS, (size_t)(kinds * floats) * sizeof(float), &t->kt));
    if (backward) {
        t->k = t->kt + floats;
        t->vt = t->k + floats;
    } else {
        t->v = t->kt + floats;
    }
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < t->count * a->K; i++) {
        int64_t segment = 0, tile = i / a->K;

        while (tile >= tiles_at(a, segment))
            tile -= tiles_at(a, segment++);
        pack_tile(a, t, segment, tile, i % a->K, i);
    }
    return HY3_OK;
}

static void store_row(void *tensor, hy3_dtype dtype, int64_t row, int64_t D, float factor,
                      const float *from)
{
    float buffer[D], *to = hy3_cpu_row_for(tensor, dtype, row, D, buffer);

    hy3_cpu_loops->scale(from, factor, to, D);
    hy3_cpu_row_put(tensor, dtype, row, D, to);
}

/* One item of the forward pass. */
struct item {
    int64_t segment, head, tile;
};

/* Keys a query sees: all up to its own place, counted from the end of the segment. */
static int64_t visible(const struct hy3_attention *a, int64_t segment, int64_t query)
{
    int64_t queries = a->q_starts[segment + 1] - a->q_starts[segment];
    int64_t keys = a->kv_end[segment] - a->kv_first[segment];

    return keys - queries + query + 1;
}

/* Floats of a thread's scratch in the forward pass. */
static int64_t forward_floats(const struct hy3_attention *a)
{
    return 2 * ROWS * padded(a->D) + ROWS * ROWS;
}

/* Softmax of one row of scores over the running statistics; rescales what was summed before. */
static void softmax_row(float *scores, int64_t seen, float *largest, float *sum, float *out,
                        int64_t width)
{
    const struct hy3_loops *loops = hy3_cpu_loops;
    float now = loops->max(scores, seen), before = *largest, shrink;

    now = now > before || isnan(now) ? now : before;
    shrink = before == -INFINITY ? 0 : expf(before - now);
    *sum = *sum * shrink + loops->exp_sum(scores, now, scores, seen);
    memset(scores + seen, 0, (size_t)(ROWS - seen) * sizeof *scores);
    *largest = now;
    loops->scale(out, shrink, out, width);
}

static void forward_item(const struct hy3_attention *a, const struct key_tiles *t, struct item item,
                         float *scratch)
{
    const struct hy3_loops *loops = hy3_cpu_loops;
    int64_t width = padded(a->D), area = ROWS * width, kv_head = item.head / (a->Q / a->K);
    int64_t first = item.tile * ROWS, q0 = a->q_starts[item.segment];
    int64_t n = smaller(ROWS, a->q_starts[item.segment + 1] - q0 - first);
    int64_t keys = visible(a, item.segment, first + n - 1);
    int64_t number = first_tile(a, item.segment) * a->K + kv_head;
    float *q = scratch, *o = q + area;
    float *scores = o + area, largest[ROWS], sum[ROWS];

    load_tile(a->q, a->dtype, a->Q, a->D, item.head, q0 + first, n, a->scale, q);
    memset(o, 0, (size_t)area * sizeof *o);
    for (int64_t i = 0; i < ROWS; i++) {
        largest[i] = -INFINITY;
        sum[i] = 0;
    }
    for (int64_t key = 0; key < keys; key += ROWS, number += a->K) {
        int64_t count = smaller(ROWS, keys - key);

        memset(scores, 0, (size_t)(ROWS * ROWS) * sizeof *scores);
        loops->tile(n, ROWS, a->D, q, width, 1, t->kt + number * area, ROWS, scores, ROWS);
        for (int64_t i = 0; i < n; i++) {
            int64_t seen = smaller(count, visible(a, item.segment, first + i) - key);

            softmax_row(scores + i * ROWS, seen > 0 ? seen : 0, &largest[i], &sum[i], o + i * width,
                        width);
        }
        loops->tile(n, width, count, scores, ROWS, 1, t->v + number * area, width, o, width);
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t row = (q0 + first + i) * a->Q + item.head;

        store_row(a->o, a->dtype, row, a->D, 1 / sum[i], o + i * width);
        if (a->lse)
            a->lse[row] = largest[i] + logf(sum[i]);
    }
}

hy3_status hy3_cpu_attention_forward(struct hy3_stream *s, const struct hy3_attention *a)
{
    int threads = omp_get_max_threads();
    int64_t floats = forward_floats(a), items = 0;
    struct key_tiles keys;
    float *scratch;

    HY3_TRY(pack_keys(a, false, &keys));
    HY3_TRY(hy3_cpu_scratch(HY3_SLOT_ATTENTION, (size_t)(threads * floats) * sizeof *scratch,
                            &scratch));
    for (int64_t i = 0; i < a->S; i++)
        items += tiles_of(a->q_starts[i + 1] - a->q_starts[i]);
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < items * a->Q; i++) {
        struct item item = {.head = i % a->Q, .tile = i / a->Q};

        for (;;) { /* which segment the tile is in */
            int64_t tiles = tiles_of(a->q_starts[item.segment + 1] - a->q_starts[item.segment]);

            if (item.tile < tiles)
                break;
            item.tile -= tiles;
            item.segment++;
        }
        forward_item(a, &keys, item, scratch + omp_get_thread_num() * floats);
    }
    return HY3_OK;
}

/* Buffers of one thread in the backward pass, for segments of up to `queries` rows and samples of
 * up to `keys`. */
struct backward {
    float *p, *ds;        /* [ROWS,ROWS] */
    float *q, *dout, *dq; /* [queries,width], queries rounded up to whole tiles */
    float *dk, *dv;       /* [keys,width], the same */
    float *delta;         /* [queries] */
    int64_t queries, keys, floats;
};

static struct backward backward_size(const struct hy3_attention *a)
{
    struct backward b = {0};

    for (int64_t s = 0; s < a->S; s++) {
        b.queries = larger(b.queries, tiles_of(a->q_starts[s + 1] - a->q_starts[s]) * ROWS);
        b.keys = larger(b.keys, tiles_of(a->kv_end[s] - a->kv_first[s]) * ROWS);
    }
    b.floats = 2 * ROWS * ROWS + (3 * b.queries + 2 * b.keys) * padded(a->D) + b.queries;
    return b;
}

static struct backward backward_buffers(const struct hy3_attention *a, const struct backward *size,
                                        float *at)
{
    int64_t q_area = size->queries * padded(a->D), k_area = size->keys * padded(a->D);
    struct backward b = *size;

    b.p = at;
    b.ds = b.p + ROWS * ROWS;
    b.q = b.ds + ROWS * ROWS;
    b.dout = b.q + q_area;
    b.dq = b.dout + q_area;
    b.dk = b.dq + q_area;
    b.dv = b.dk + k_area;
    b.delta = b.dv + k_area;
    return b;
}

/* delta[i] = dot(dout[i], o[i]) of one head */
static void fill_delta(const struct hy3_attention *a, int64_t q0, int64_t n, int64_t head,
                       float *delta)
{
    for (int64_t i = 0; i < n; i++) {
        float x[a->D], y[a->D];
        int64_t row = (q0 + i) * a->Q + head;

        delta[i] = hy3_cpu_loops->dot(hy3_cpu_row(a->dout, a->dtype, row, a->D, x),
                                      hy3_cpu_row(a->o, a->dtype, row, a->D, y), a->D);
    }
}

/* Of one head of a segment. */
struct part {
    int64_t head, q0, rows; /* its queries */
    int64_t keys;
    int64_t number; /* of its first tile of keys */
};

/* The tile of queries from `first` on against the tile of keys from `key` on: p, ds, and what they
 * add to dq, dk, dv. */
static void backward_tile(const struct hy3_attention *a, const struct backward *b,
                          const struct key_tiles *t, const struct part *part, int64_t first,
                          int64_t key)
{
    const struct hy3_loops *loops = hy3_cpu_loops;
    int64_t width = padded(a->D), area = t->area, before = part->keys - part->rows;
    int64_t n = smaller(ROWS, part->rows - first), count = smaller(ROWS, part->keys - key);
    int64_t number = part->number + key / ROWS * a->K;
    const float *q = b->q + first * width, *dout = b->dout + first * width;

    memset(b->p, 0, (size_t)(ROWS * ROWS) * sizeof *b->p);
    memset(b->ds, 0, (size_t)(ROWS * ROWS) * sizeof *b->ds);
    loops->tile(n, ROWS, a->D, q, width, 1, t->kt + number * area, ROWS, b->p, ROWS);
    loops->tile(n, ROWS, a->D, dout, width, 1, t->vt + number * area, ROWS, b->ds, ROWS);
    for (int64_t i = 0; i < n; i++) {
        float *p = b->p + i * ROWS, *ds = b->ds + i * ROWS, delta = b->delta[first + i];
        int64_t seen = smaller(count, before + first + i + 1 - key);

        seen = seen > 0 ? seen : 0;
        loops->exp_sum(p, a->lse[(part->q0 + first + i) * a->Q + part->head], p, seen);
        memset(p + seen, 0, (size_t)(ROWS - seen) * sizeof *p);
#pragma omp simd
        for (int64_t j = 0; j < ROWS; j++)
            ds[j] = p[j] * (ds[j] - delta);
    }
    /* q carries the scale, so dk is complete; dq gets it when it is stored */
    loops->tile(count, width, n, b->p, 1, ROWS, dout, width, b->dv + key * width, width);
    loops->tile(count, width, n, b->ds, 1, ROWS, q, width, b->dk + key * width, width);
    loops->tile(n, width, count, b->ds, ROWS, 1, t->k + number * area, width, b->dq + first * width,
                width);
}

static void backward_head(const struct hy3_attention *a, const struct backward *b,
                          const struct key_tiles *t, const struct part *part)
{
    int64_t width = padded(a->D), before = part->keys - part->rows;

    fill_delta(a, part->q0, part->rows, part->head, b->delta);
    memset(b->dq, 0, (size_t)(part->rows * width) * sizeof *b->dq);
    for (int64_t first = 0; first < part->rows; first += ROWS) {
        int64_t n = smaller(ROWS, part->rows - first), row = part->q0 + first;

        load_tile(a->q, a->dtype, a->Q, a->D, part->head, row, n, a->scale, b->q + first * width);
        load_tile(a->dout, a->dtype, a->Q, a->D, part->head, row, n, 1, b->dout + first * width);
    }
    for (int64_t key = 0; key < part->keys; key += ROWS)
        for (int64_t first = larger(0, key - before) / ROWS * ROWS; first < part->rows;
             first += ROWS)
            backward_tile(a, b, t, part, first, key);
    for (int64_t i = 0; i < part->rows; i++)
        store_row(a->dq, a->dtype, (part->q0 + i) * a->Q + part->head, a->D, a->scale,
                  b->dq + i * width);
}

/* Row `row` of dk or dv. */
static void store_key(const struct hy3_attention *a, void *tensor, int64_t row, const float *from)
{
    if (a->accumulate)
        hy3_cpu_loops->axpy(from, 1, (float *)tensor + row * a->D, a->D);
    else
        store_row(tensor, a->dtype, row, a->D, 1, from);
}

/* The sample whose last segment this is. */
static void backward_item(const struct hy3_attention *a, const struct backward *b,
                          const struct key_tiles *t, int64_t last, int64_t kv_head)
{
    int64_t group = a->Q / a->K, width = padded(a->D), first = last;
    int64_t keys = a->kv_end[last] - a->kv_first[last];
    int64_t number = first_tile(a, last) * a->K + kv_head;

    while (first > 0 && a->kv_first[first - 1] == a->kv_first[last])
        first--;
    memset(b->dk, 0, (size_t)(keys * width) * sizeof *b->dk);
    memset(b->dv, 0, (size_t)(keys * width) * sizeof *b->dv);
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++)
        for (int64_t s = first; s <= last; s++)
            backward_head(a, b, t,
                          &(struct part){.head = head,
                                         .q0 = a->q_starts[s],
                                         .rows = a->q_starts[s + 1] - a->q_starts[s],
                                         .keys = a->kv_end[s] - a->kv_first[s],
                                         .number = number});
    for (int64_t j = 0; j < keys; j++) {
        int64_t row = (a->kv_first[last] + j) * a->K + kv_head;

        store_key(a, a->dk, row, b->dk + j * width);
        store_key(a, a->dv, row, b->dv + j * width);
    }
}

hy3_status hy3_cpu_attention_backward(struct hy3_stream *s, const struct hy3_attention *a)
{
    int threads = omp_get_max_threads();
    const struct backward size = backward_size(a);
    struct key_tiles keys;
    float *scratch;

    HY3_TRY(pack_keys(a, true, &keys));
    HY3_TRY(hy3_cpu_scratch(HY3_SLOT_ATTENTION, (size_t)(threads * size.floats) * sizeof *scratch,
                            &scratch));
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < a->S * a->K; i++) {
        struct backward b =
            backward_buffers(a, &size, scratch + omp_get_thread_num() * size.floats);

        if (is_last(a, i / a->K))
            backward_item(a, &b, &keys, i / a->K, i % a->K);
    }
    return HY3_OK;
}
