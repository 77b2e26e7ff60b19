/* attention.c - causal attention of each sample in tiles of ROWS queries by ROWS keys.
 *
 * Forward: an item of work is (sample, query head, tile of queries); it walks over the tiles of keys with a running maximum
 * and sum (FlashAttention-2, algorithm 1). Backward: an item is (sample, key-value head) with all query heads of its group, so dq,
 * dk and dv of an item belong to one thread and are summed in a fixed order. Tiles are fp32; their products are loops.h's `tile`. */
#include "backend/cpu/cpu.h"

#include <math.h>
#include <omp.h>

enum { ROWS = 64 };

/* D rounded up to whole vectors; the columns added are zero. */
static int64_t padded(int64_t D)
{
    return (D + 15) / 16 * 16;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Rows first .. first+n of head `head` of a [T,heads,D] tensor into tile [ROWS,padded(D)], times `factor`; the rest zero. */
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
    for (int64_t i = 0; i < ROWS; i++)
        for (int64_t d = 0; d < width; d++)
            out[d * ROWS + i] = tile[i * width + d];
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
    int64_t sample, head, tile;
};

/* Keys a query sees: all up to its own place, counted from the end of the sample. */
static int64_t visible(const struct hy3_attention *a, int64_t sample, int64_t query)
{
    int64_t queries = a->q_starts[sample + 1] - a->q_starts[sample];
    int64_t keys = a->kv_starts[sample + 1] - a->kv_starts[sample];

    return keys - queries + query + 1;
}

/* Floats of a thread's scratch in the forward pass. */
static int64_t forward_floats(const struct hy3_attention *a)
{
    return 5 * ROWS * padded(a->D) + ROWS * ROWS;
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

static void forward_item(const struct hy3_attention *a, struct item item, float *scratch)
{
    const struct hy3_loops *loops = hy3_cpu_loops;
    int64_t width = padded(a->D), area = ROWS * width, kv_head = item.head / (a->Q / a->K);
    int64_t first = item.tile * ROWS, q0 = a->q_starts[item.sample], k0 = a->kv_starts[item.sample];
    int64_t n = smaller(ROWS, a->q_starts[item.sample + 1] - q0 - first);
    int64_t keys = visible(a, item.sample, first + n - 1);
    float *q = scratch, *k = q + area, *kt = k + area, *v = kt + area, *o = v + area;
    float *scores = o + area, largest[ROWS], sum[ROWS];

    load_tile(a->q, a->dtype, a->Q, a->D, item.head, q0 + first, n, a->scale, q);
    memset(o, 0, (size_t)area * sizeof *o);
    for (int64_t i = 0; i < ROWS; i++) {
        largest[i] = -INFINITY;
        sum[i] = 0;
    }
    for (int64_t key = 0; key < keys; key += ROWS) {
        int64_t count = smaller(ROWS, keys - key);

        load_tile(a->k, a->dtype, a->K, a->D, kv_head, k0 + key, count, 1, k);
        load_tile(a->v, a->dtype, a->K, a->D, kv_head, k0 + key, count, 1, v);
        transpose(k, width, kt);
        memset(scores, 0, ROWS * ROWS * sizeof *scores);
        loops->tile(n, ROWS, a->D, q, width, 1, kt, ROWS, scores, ROWS);
        for (int64_t i = 0; i < n; i++) {
            int64_t seen = smaller(count, visible(a, item.sample, first + i) - key);

            softmax_row(scores + i * ROWS, seen > 0 ? seen : 0, &largest[i], &sum[i], o + i * width,
                        width);
        }
        loops->tile(n, width, count, scores, ROWS, 1, v, width, o, width);
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
    hy3_status status = HY3_OK;
    int threads = omp_get_max_threads();
    int64_t floats = forward_floats(a), items = 0;
    float *scratch;

    (void)s;
    HY3_TRY(hy3_cpu_scratch(HY3_SLOT_ATTENTION, (size_t)(threads * floats) * sizeof *scratch,
                            &scratch));
    for (int64_t sample = 0; sample < a->S; sample++)
        items += (a->q_starts[sample + 1] - a->q_starts[sample] + ROWS - 1) / ROWS;
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < items * a->Q; i++) {
        struct item item = {.head = i % a->Q, .tile = i / a->Q};

        for (;;) { /* which sample the tile is in */
            int64_t rows = a->q_starts[item.sample + 1] - a->q_starts[item.sample];

            if (item.tile < (rows + ROWS - 1) / ROWS)
                break;
            item.tile -= (rows + ROWS - 1) / ROWS;
            item.sample++;
        }
        forward_item(a, item, scratch + omp_get_thread_num() * floats);
    }
done:
    return status;
}

/* Buffers of one thread in the backward pass, for samples of up to `longest` rows. */
struct backward {
    float *q, *dout, *k, *kt, *vt, *tile; /* [ROWS,width] and transposed */
    float *p, *ds;                        /* [ROWS,ROWS] */
    float *dq, *dk, *dv;                  /* [longest,width] */
    float *delta;                         /* [longest] */
};

static int64_t backward_floats(const struct hy3_attention *a, int64_t longest)
{
    int64_t rows = (longest + ROWS - 1) / ROWS * ROWS;

    return 6 * ROWS * padded(a->D) + 2 * ROWS * ROWS + 3 * rows * padded(a->D) + rows;
}

static struct backward backward_buffers(const struct hy3_attention *a, int64_t longest, float *at)
{
    int64_t area = ROWS * padded(a->D), rows = (longest + ROWS - 1) / ROWS * ROWS;
    struct backward b;
    float **const tiles[] = {&b.q, &b.dout, &b.k, &b.kt, &b.vt, &b.tile};

    for (size_t i = 0; i < sizeof tiles / sizeof *tiles; i++, at += area)
        *tiles[i] = at;
    b.p = at;
    b.ds = b.p + ROWS * ROWS;
    b.dq = b.ds + ROWS * ROWS;
    b.dk = b.dq + rows * padded(a->D);
    b.dv = b.dk + rows * padded(a->D);
    b.delta = b.dv + rows * padded(a->D);
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

/* One tile of queries against one tile of keys: p, ds, and what they add to dq, dk, dv. */
static void backward_tile(const struct hy3_attention *a, const struct backward *b, int64_t q0,
                          int64_t head, int64_t first, int64_t n, int64_t key, int64_t count)
{
    const struct hy3_loops *loops = hy3_cpu_loops;
    int64_t width = padded(a->D);

    memset(b->p, 0, ROWS * ROWS * sizeof *b->p);
    memset(b->ds, 0, ROWS * ROWS * sizeof *b->ds);
    loops->tile(n, ROWS, a->D, b->q, width, 1, b->kt, ROWS, b->p, ROWS);
    loops->tile(n, ROWS, a->D, b->dout, width, 1, b->vt, ROWS, b->ds, ROWS);
    for (int64_t i = 0; i < n; i++) {
        float *p = b->p + i * ROWS, *ds = b->ds + i * ROWS;
        int64_t seen = smaller(count, first + i + 1 - key);

        seen = seen > 0 ? seen : 0;
        loops->exp_sum(p, a->lse[(q0 + first + i) * a->Q + head], p, seen);
        memset(p + seen, 0, (size_t)(ROWS - seen) * sizeof *p);
        for (int64_t j = 0; j < ROWS; j++)
            ds[j] = p[j] * (ds[j] - b->delta[first + i]);
    }
    /* q carries the scale, so dk is complete; dq gets it when it is stored */
    loops->tile(count, width, n, b->p, 1, ROWS, b->dout, width, b->dv + key * width, width);
    loops->tile(count, width, n, b->ds, 1, ROWS, b->q, width, b->dk + key * width, width);
    loops->tile(n, width, count, b->ds, ROWS, 1, b->k, width, b->dq + first * width, width);
}

static void backward_head(const struct hy3_attention *a, const struct backward *b, int64_t q0,
                          int64_t rows, int64_t head)
{
    int64_t width = padded(a->D), kv_head = head / (a->Q / a->K);

    fill_delta(a, q0, rows, head, b->delta);
    memset(b->dq, 0, (size_t)(rows * width) * sizeof *b->dq);
    for (int64_t key = 0; key < rows; key += ROWS) {
        int64_t count = smaller(ROWS, rows - key);

        load_tile(a->v, a->dtype, a->K, a->D, kv_head, q0 + key, count, 1, b->tile);
        transpose(b->tile, width, b->vt);
        load_tile(a->k, a->dtype, a->K, a->D, kv_head, q0 + key, count, 1, b->k);
        transpose(b->k, width, b->kt);
        for (int64_t first = key; first < rows; first += ROWS) {
            int64_t n = smaller(ROWS, rows - first);

            load_tile(a->q, a->dtype, a->Q, a->D, head, q0 + first, n, a->scale, b->q);
            load_tile(a->dout, a->dtype, a->Q, a->D, head, q0 + first, n, 1, b->dout);
            backward_tile(a, b, q0, head, first, n, key, count);
        }
    }
    for (int64_t i = 0; i < rows; i++)
        store_row(a->dq, a->dtype, (q0 + i) * a->Q + head, a->D, a->scale, b->dq + i * width);
}

hy3_status hy3_cpu_attention_backward(struct hy3_stream *s, const struct hy3_attention *a)
{
    hy3_status status = HY3_OK;
    int threads = omp_get_max_threads();
    int64_t longest = 0, floats, group = a->Q / a->K, width = padded(a->D);
    float *scratch;

    (void)s;
    for (int64_t i = 0; i < a->S; i++)
        longest = a->q_starts[i + 1] - a->q_starts[i] > longest
                      ? a->q_starts[i + 1] - a->q_starts[i]
                      : longest;
    floats = backward_floats(a, longest);
    HY3_TRY(hy3_cpu_scratch(HY3_SLOT_ATTENTION, (size_t)(threads * floats) * sizeof *scratch,
                            &scratch));
#pragma omp parallel for schedule(dynamic)
    for (int64_t i = 0; i < a->S * a->K; i++) {
        int64_t q0 = a->q_starts[i / a->K], rows = a->q_starts[i / a->K + 1] - q0,
                kv_head = i % a->K;
        struct backward b = backward_buffers(a, longest, scratch + omp_get_thread_num() * floats);

        memset(b.dk, 0, (size_t)(rows * width) * sizeof *b.dk);
        memset(b.dv, 0, (size_t)(rows * width) * sizeof *b.dv);
        for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++)
            backward_head(a, &b, q0, rows, head);
        for (int64_t j = 0; j < rows; j++) {
            store_row(a->dk, a->dtype, (q0 + j) * a->K + kv_head, a->D, 1, b.dk + j * width);
            store_row(a->dv, a->dtype, (q0 + j) * a->K + kv_head, a->D, 1, b.dv + j * width);
        }
    }
done:
    return status;
}
