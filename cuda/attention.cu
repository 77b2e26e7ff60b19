/* SPDX-License-Identifier: Apache-2.0 */
/* attention.cu - causal attention of packed samples: bf16 with head sizes of tensor cores by
 * flash_hopper.cuh or flash.cuh, everything else by plain kernels, a warp a row (fp32 is for tests
 * and comparisons). */
#include "cuda/cuda.h"
#include "cuda/flash.cuh"
#include "cuda/flash_hopper.cuh"
#include "cuda/tiles.h"

#include <stdlib.h>
#include <string.h>

enum {
    WARPS = 4,
    LANES = 32,
    COLUMNS = 8
}; /* of a block; COLUMNS * LANES is the largest D of the plain kernels */

/* What the plain kernels are given. */
template <class T> struct plain {
    int Q, K, D;
    float scale;
    const T *q, *k, *v;
    T *o;
    float *lse;
    const T *dout;
    T *dq, *dk, *dv;
    const float *delta;
};

template <class T> HY3_DEVICE float dot(int D, const T *a, const T *b)
{
    float sum = 0;

    for (int d = 0; d < D; d++)
        sum += to_float(a[d]) * to_float(b[d]);
    return sum;
}

/* sums[c] += sum over the 32 rows of weights[row] * matrix[first + row][lane + 32 c]; rows beyond
 * `count` count nothing. */
template <class T>
HY3_DEVICE void add_rows(float (&sums)[COLUMNS], const float *weights, int count, int D,
                         const T *matrix, int64_t row_elements)
{
    int lane = threadIdx.x & 31;

    for (int row = 0; row < count && row < LANES; row++) {
        HY3_UNROLL
        for (int c = 0; c < COLUMNS; c++)
            if (lane + c * LANES < D)
                sums[c] += weights[row] * to_float(matrix[row * row_elements + lane + c * LANES]);
    }
}

template <class T> HY3_DEVICE void put_row(const float (&sums)[COLUMNS], float factor, int D, T *to)
{
    int lane = threadIdx.x & 31;

    HY3_UNROLL
    for (int c = 0; c < COLUMNS; c++)
        if (lane + c * LANES < D)
            from_float(sums[c] * factor, &to[lane + c * LANES]);
}

/* Lane = key: 32 scores at a time with a running maximum and sum. Grid (query tiles, query
 * heads). */
template <class T>
__global__ void plain_forward_kernel(struct plain<T> a, const struct hy3_query_tile *tiles)
{
    HY3_SHARED(float, shared, [WARPS][LANES]);
    struct hy3_query_tile tile = tiles[blockIdx.x];
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, head = blockIdx.y;
    int64_t kv_row = (int64_t)a.K * a.D;

    for (int i = warp; i < tile.rows; i += WARPS) {
        int64_t row = (int64_t)(tile.q_first + i) * a.Q + head;
        const T *q = a.q + row * a.D;
        const T *k = a.k + ((int64_t)tile.kv_first * a.K + head / (a.Q / a.K)) * a.D;
        const T *v = a.v + ((int64_t)tile.kv_first * a.K + head / (a.Q / a.K)) * a.D;
        float most = -INFINITY, sum = 0, out[COLUMNS] = {0};
        int seen = tile.seen + i;

        for (int base = 0; base < seen; base += LANES) {
            bool is = base + lane < seen;
            float s = is ? a.scale * dot(a.D, q, k + (base + lane) * kv_row) : -INFINITY;
            float now = fmaxf(most, warp_max(s)), shrink = expf(most - now),
                  p = is ? expf(s - now) : 0;

            sum = sum * shrink + warp_sum(p);
            most = now;
            shared[warp][lane] = p;
            __syncwarp();
            HY3_UNROLL
            for (int c = 0; c < COLUMNS; c++)
                out[c] *= shrink;
            add_rows(out, shared[warp], seen - base, a.D, v + base * kv_row, kv_row);
            __syncwarp();
        }
        put_row(out, 1 / sum, a.D, a.o + row * a.D);
        if (a.lse && lane == 0)
            a.lse[row] = most + logf(sum);
    }
}

/* delta[row] = dot(dout, o), a warp a row [Tq,Q]. */
template <class T>
__global__ void plain_delta_kernel(int64_t rows, int D, const T *dout, const T *o, float *delta)
{
    int64_t row = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5);
    float sum = 0;

    if (row >= rows)
        return;
    for (int d = threadIdx.x & 31; d < D; d += LANES)
        sum += to_float(dout[row * D + d]) * to_float(o[row * D + d]);
    sum = warp_sum(sum);
    if ((threadIdx.x & 31) == 0)
        delta[row] = sum;
}

/* Lane = key. Grid (query tiles, query heads). */
template <class T>
__global__ void plain_dq_kernel(struct plain<T> a, const struct hy3_query_tile *tiles)
{
    HY3_SHARED(float, shared, [WARPS][LANES]);
    struct hy3_query_tile tile = tiles[blockIdx.x];
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, head = blockIdx.y;
    int64_t kv_row = (int64_t)a.K * a.D,
            kv_first = ((int64_t)tile.kv_first * a.K + head / (a.Q / a.K)) * a.D;

    for (int i = warp; i < tile.rows; i += WARPS) {
        int64_t row = (int64_t)(tile.q_first + i) * a.Q + head;
        const T *k = a.k + kv_first, *v = a.v + kv_first;
        float sums[COLUMNS] = {0};
        int seen = tile.seen + i;

        for (int base = 0; base < seen; base += LANES) {
            float ds = 0;

            if (base + lane < seen) {
                int64_t at = (base + lane) * kv_row;
                float p = expf(a.scale * dot(a.D, a.q + row * a.D, k + at) - a.lse[row]);

                ds = p * (dot(a.D, a.dout + row * a.D, v + at) - a.delta[row]);
            }
            shared[warp][lane] = ds;
            __syncwarp();
            add_rows(sums, shared[warp], seen - base, a.D, k + base * kv_row, kv_row);
            __syncwarp();
        }
        put_row(sums, a.scale, a.D, a.dq + row * a.D);
    }
}

/* Lane = query. Grid (key tiles, key-value heads). */
template <class T>
__global__ void plain_dkv_kernel(struct plain<T> a, const struct hy3_key_tile *tiles)
{
    HY3_SHARED(float, shared_p, [WARPS][LANES]);
    HY3_SHARED(float, shared_ds, [WARPS][LANES]);
    struct hy3_key_tile tile = tiles[blockIdx.x];
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, group = a.Q / a.K;
    int64_t q_row = (int64_t)a.Q * a.D;

    for (int i = warp; i < tile.rows; i += WARPS) {
        int64_t at = ((int64_t)(tile.kv_first + i) * a.K + blockIdx.y) * a.D;
        int first = i > tile.before ? i - tile.before : 0;
        float dk[COLUMNS] = {0}, dv[COLUMNS] = {0};

        for (int head = blockIdx.y * group; head < (int)(blockIdx.y + 1) * group; head++) {
            for (int base = first; base < tile.q_count; base += LANES) {
                int64_t begin = ((int64_t)(tile.q_first + base) * a.Q + head) * a.D;
                float p = 0, ds = 0;

                if (base + lane < tile.q_count) {
                    int64_t mine = begin + lane * q_row;

                    p = expf(a.scale * dot(a.D, a.q + mine, a.k + at) - a.lse[mine / a.D]);
                    ds = p * (dot(a.D, a.dout + mine, a.v + at) - a.delta[mine / a.D]);
                }
                shared_p[warp][lane] = p;
                shared_ds[warp][lane] = ds;
                __syncwarp();
                add_rows(dv, shared_p[warp], tile.q_count - base, a.D, a.dout + begin, q_row);
                add_rows(dk, shared_ds[warp], tile.q_count - base, a.D, a.q + begin, q_row);
                __syncwarp();
            }
        }
        put_row(dk, a.scale, a.D, a.dk + at);
        put_row(dv, 1, a.D, a.dv + at);
    }
}

/* ---- the work lists ---- */

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

/* The device has the tiles of these samples already. */
static bool is_tiled(const struct hy3_stream *s, const struct hy3_attention *a, int64_t rows)
{
    size_t bytes = (size_t)(a->S + 1) * sizeof(int64_t);

    return s->tiled && s->tiled_samples == a->S && s->tile_rows == rows &&
           memcmp(s->tiled, a->q_starts, bytes) == 0 &&
           memcmp(s->tiled + a->S + 1, a->kv_starts, bytes) == 0;
}

static hy3_status remember(struct hy3_stream *s, const struct hy3_attention *a, int64_t rows)
{
    size_t bytes = (size_t)(a->S + 1) * sizeof(int64_t);

    free(s->tiled);
    s->tiled = (int64_t *)malloc(2 * bytes);
    if (!s->tiled)
        return hy3_cuda_failed("malloc", "out of host memory", true, __FILE__, __LINE__);
    memcpy(s->tiled, a->q_starts, bytes);
    memcpy(s->tiled + a->S + 1, a->kv_starts, bytes);
    s->tiled_samples = a->S;
    s->tile_rows = rows;
    return HY3_OK;
}

/* Brings tiles of so many rows to the device, unless they are those of the call before: a
 * micro-batch's layers share them. */
static hy3_status tile(struct hy3_stream *s, const struct hy3_attention *a, int64_t rows)
{
    int queries = tiles_of(a->q_starts, a->S, rows), keys = tiles_of(a->kv_starts, a->S, rows);
    size_t bytes = (size_t)queries * sizeof(struct hy3_query_tile) +
                   (size_t)keys * sizeof(struct hy3_key_tile);
    hy3_status status;
    void *unused;
    char *host;

    if (is_tiled(s, a, rows))
        return HY3_OK;
    free(s->tiled);
    s->tiled = NULL;
    host = (char *)malloc(bytes);
    if (!host)
        return hy3_cuda_failed("malloc", "out of host memory", true, __FILE__, __LINE__);
    cut_queries(a, rows, (struct hy3_query_tile *)host);
    cut_keys(a, rows,
             (struct hy3_key_tile *)(host + (size_t)queries * sizeof(struct hy3_query_tile)));
    status = hy3_cuda_upload(s, HY3_SLOT_TILES, host, bytes, &unused);
    free(host);
    s->query_tiles = queries;
    s->key_tiles = keys;
    return status == HY3_OK ? remember(s, a, rows) : status;
}

static const struct hy3_query_tile *query_tiles(const struct hy3_stream *s)
{
    return (const struct hy3_query_tile *)s->scratch[HY3_SLOT_TILES].memory;
}

static const struct hy3_key_tile *key_tiles(const struct hy3_stream *s)
{
    return (const struct hy3_key_tile *)(query_tiles(s) + s->query_tiles);
}

template <class T>
static struct plain<T> plain_of(const struct hy3_attention *a, const float *delta) {
    return {(int)a->Q,       (int)a->K,       (int)a->D,  a->scale, (const T *)a->q,
            (const T *)a->k, (const T *)a->v, (T *)a->o,  a->lse,   (const T *)a->dout,
            (T *)a->dq,      (T *)a->dk,      (T *)a->dv, delta};

}

static hy3_status
too_wide(const struct hy3_attention *a)

{
    return hy3_cuda_host.fail(
        HY3_EUSAGE, __FILE__, __LINE__,
        "head_dim = %lld: the GPU's attention takes at most %d; set device = \"cpu\"",
        (long long)a->D, COLUMNS * LANES);
}

template <class T> static hy3_status forward(struct hy3_stream *s, const struct hy3_attention *a)
{
    HY3_CUDA_LAUNCH(plain_forward_kernel<T>, dim3((unsigned)s->query_tiles, (unsigned)a->Q),
                    WARPS * 32, 0, s->stream, plain_of<T>(a, NULL), query_tiles(s));
    return HY3_OK;
}

template <class T>
static hy3_status backward(struct hy3_stream *s, const struct hy3_attention *a, float *delta)
{
    int64_t rows = a->q_starts[a->S] * a->Q;
    struct plain<T> p = plain_of<T>(a, delta);

    HY3_CUDA_LAUNCH(plain_delta_kernel<T>, blocks_for(rows, WARPS), WARPS * 32, 0, s->stream, rows,
                    (int)a->D, p.dout, (const T *)p.o, delta);
    HY3_CUDA_LAUNCH(plain_dq_kernel<T>, dim3((unsigned)s->query_tiles, (unsigned)a->Q), WARPS * 32,
                    0, s->stream, p, query_tiles(s));
    HY3_CUDA_LAUNCH(plain_dkv_kernel<T>, dim3((unsigned)s->key_tiles, (unsigned)a->K), WARPS * 32,
                    0, s->stream, p, key_tiles(s));
    return HY3_OK;
}

/* ---- tensor cores ---- */

static bool has_flash(const struct hy3_attention *a)
{
    return a->dtype == HY3_BF16 && (a->D == 16 || a->D == 32 || a->D == 64 || a->D == 128) &&
           is_wide<bf16>(a->D, a->q, a->k, a->v, a->o) &&
           (!a->dout || (is_wide<bf16>(a->D, a->dout, a->dq, a->dk, a->dv)));
}

/* Whether the device has the warpgroup products of flash_hopper.cuh. */
static bool is_hopper(void)
{
    static int major; /* of the device's compute capability; 0: not asked yet */
    int device;

    if (major == 0 &&
        (cudaGetDevice(&device) != cudaSuccess ||
         cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess))
        return false;
    return major == 9;
}

/* Rows of a tile, which say who computes. */
static int64_t rows_for(const struct hy3_attention *a)
{
    return has_flash(a) && a->D >= 64 && is_hopper() ? (int64_t)HY3_HOPPER_ROWS : (int64_t)HY3_TILE;
}

static struct hy3_flash flash_of(const struct hy3_stream *s, const struct hy3_attention *a,
                                 float *delta)
{
    return {
        (int)a->Q,          (int)a->K,      a->scale,     s->query_tiles,        s->key_tiles,
        a->q_starts[a->S],  query_tiles(s), key_tiles(s), (const bf16 *)a->q,    (const bf16 *)a->k,
        (const bf16 *)a->v, (bf16 *)a->o,   a->lse,       (const bf16 *)a->dout, (bf16 *)a->dq,
        (bf16 *)a->dk,      (bf16 *)a->dv,  delta};
}

template <int D>
static hy3_status flash_forward(struct hy3_stream *s, const struct hy3_attention *a)
{
    struct hy3_flash f = flash_of(s, a, NULL);

    if constexpr (D >= 64) {
        if (s->tile_rows == HY3_HOPPER_ROWS) {
            HY3_CUDA_TRY(hy3_hopper_forward<D>(&f, s->stream));
            return HY3_OK;
        }
    }
    HY3_CUDA_TRY(hy3_flash_forward<D>(&f, s->stream));
    return HY3_OK;
}

template <int D>
static hy3_status flash_backward(struct hy3_stream *s, const struct hy3_attention *a, float *delta)
{
    struct hy3_flash f = flash_of(s, a, delta);

    HY3_CUDA_TRY(hy3_flash_delta<D>(&f, s->stream));
    if constexpr (D >= 64) {
        if (s->tile_rows == HY3_HOPPER_ROWS) {
            HY3_CUDA_TRY(hy3_hopper_backward<D>(&f, s->stream));
            return HY3_OK;
        }
    }
    HY3_CUDA_TRY(hy3_flash_dq<D>(&f, s->stream));
    HY3_CUDA_TRY(hy3_flash_dkdv<D>(&f, s->stream));
    return HY3_OK;
}

hy3_status hy3_cuda_attention_forward(struct hy3_stream *stream, const struct hy3_attention *a)
{
    struct hy3_stream *s = hy3_cuda_stream(stream);

    if (a->S == 0 || a->q_starts[a->S] == 0)
        return HY3_OK;
    if (a->D > COLUMNS * LANES)
        return too_wide(a);
    HY3_STATUS_TRY(tile(s, a, rows_for(a)));
    if (a->dtype == HY3_FP32)
        return forward<float>(s, a);
    if (!has_flash(a))
        return forward<bf16>(s, a);
    return a->D == 16   ? flash_forward<16>(s, a)
           : a->D == 32 ? flash_forward<32>(s, a)
           : a->D == 64 ? flash_forward<64>(s, a)
                        : flash_forward<128>(s, a);
}

hy3_status hy3_cuda_attention_backward(struct hy3_stream *stream, const struct hy3_attention *a)
{
    struct hy3_stream *s = hy3_cuda_stream(stream);
    void *delta;

    if (a->S == 0 || a->q_starts[a->S] == 0)
        return HY3_OK;
    if (a->D > COLUMNS * LANES)
        return too_wide(a);
    HY3_STATUS_TRY(tile(s, a, rows_for(a)));
    HY3_STATUS_TRY(hy3_cuda_scratch(s, HY3_SLOT_DELTA,
                                    (size_t)(a->q_starts[a->S] * a->Q) * sizeof(float), &delta));
    if (a->dtype == HY3_FP32)
        return backward<float>(s, a, (float *)delta);
    if (!has_flash(a))
        return backward<bf16>(s, a, (float *)delta);
    return a->D == 16   ? flash_backward<16>(s, a, (float *)delta)
           : a->D == 32 ? flash_backward<32>(s, a, (float *)delta)
           : a->D == 64 ? flash_backward<64>(s, a, (float *)delta)
                        : flash_backward<128>(s, a, (float *)delta);
}
