/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flash.cuh - causal attention over a packed batch, forward and backward, bf16 with mma.sync
 * m16n8k16.
 *
 * Algorithm: FlashAttention-2 (Dao 2023, arXiv 2307.08691): tiles of scores never leave the
 * registers, softmax is rescaled online, the backward recomputes the scores from lse.
 *
 *   q, o, dout, dq: [Tq, Q, D] bf16    k, v, dk, dv: [Tk, K, D] bf16    lse, delta: [Tq, Q] fp32
 *
 * Query head h uses kv head h / (Q / K). All sums are fp32 in a fixed order, without atomics, so
 * results do not depend on the schedule. Pointers must be 16-byte aligned; scale must be > 0.
 */
#ifndef HY3_CUDA_FLASH_H
#define HY3_CUDA_FLASH_H

#include "cuda/launch.h"
#include "cuda/tiles.h"

#include <string.h>

struct hy3_flash {
    int Q, K;
    float scale;
    int query_tiles, key_tiles;
    int64_t Tq;
    const struct hy3_query_tile *query_tile; /* device arrays */
    const struct hy3_key_tile *key_tile;
    const __nv_bfloat16 *q, *k, *v;
    __nv_bfloat16 *o;
    float *lse; /* the forward skips it when NULL */
    const __nv_bfloat16 *dout;
    __nv_bfloat16 *dq, *dk, *dv;
    float *delta; /* scratch of the backward */
};

enum {
    HY3_FLASH_THREADS = 128,   /* 4 warps, 16 rows of the block's tile each */
    HY3_FLASH_ROWS = HY3_TILE, /* of a tile in a work list, and keys in a step */
    HY3_FLASH_STEP = 32        /* queries in a step of dkdv: 64 would not fit the registers */
};

#define HY3_FLASH_LOG2E 1.4426950408889634f

/* ------------------------------------------------------------------ tiles and fragments */

/* Place (in elements) of a 16-byte chunk in a tile [rows][D] in shared memory. The xor puts the
   same chunk of 8 neighbouring rows into 8 different bank groups, so that ldmatrix has no
   conflicts; rows shorter than the 128 bytes of all banks share a line, hence the division. */
template <int D> HY3_DEVICE int hy3_flash_at(int row, int chunk)
{
    constexpr int chunks = D / 8;
    constexpr int shared_by = chunks < 8 ? 8 / chunks : 1;
    constexpr int mask = chunks < 8 ? chunks - 1 : 7;
    return row * D + ((chunk ^ (row / shared_by & mask)) << 3);
}

/* Starts the copy of rows 0 .. rows-1 of a global [..][D] matrix into a tile of N rows. The other
   rows become zeros and their addresses are never formed: the next sample, or nothing, is there,
   and leftover bits could be NaN, which 0 * NaN would spread. */
template <int D, int N>
HY3_DEVICE void hy3_flash_load(__nv_bfloat16 *tile, const __nv_bfloat16 *from, int64_t stride,
                               int rows)
{
    constexpr int chunks = D / 8, all = N * chunks;
    HY3_UNROLL
    for (int i = 0; i < all; i += HY3_FLASH_THREADS) {
        int at = i + (int)threadIdx.x, row = at / chunks, chunk = at % chunks;
        if (all % HY3_FLASH_THREADS == 0 || at < all) {
            __nv_bfloat16 *to = tile + hy3_flash_at<D>(row, chunk);
            if (row < rows)
                hy3_cp_async16(to, from + row * stride + chunk * 8);
            else
                *(uint4 *)to = make_uint4(0, 0, 0, 0);
        }
    }
}

/* A fragment (16 x 16) of rows row0 .. row0+15, columns 16 kk .. of a tile */
template <int D>
HY3_DEVICE void hy3_flash_a(uint32_t (&a)[4], const __nv_bfloat16 *tile, int row0, int kk)
{
    int lane = threadIdx.x & 31;
    hy3_ldmatrix_x4(a, tile + hy3_flash_at<D>(row0 + (lane & 15), kk * 2 + (lane >> 4)));
}

/* two 16 x 8 accumulators += a times two neighbouring B fragments */
HY3_DEVICE void hy3_flash_mma2(float (&c0)[4], float (&c1)[4], const uint32_t (&a)[4],
                               const uint32_t (&b)[4])
{
    const uint32_t b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
    hy3_mma_m16n8k16_bf16(c0, a, b0);
    hy3_mma_m16n8k16_bf16(c1, a, b1);
}

/* c[16][N] += a[16][16] times columns 16 kk .. of the tile b[N][D], transposed */
template <int D, int N>
HY3_DEVICE void hy3_flash_nt(float (&c)[N / 8][4], const uint32_t (&a)[4],
                             const __nv_bfloat16 *tile, int kk)
{
    int lane = threadIdx.x & 31, row = (lane & 7) + (lane >> 4) * 8, half = lane >> 3 & 1;
    HY3_UNROLL
    for (int n = 0; n < N / 16; n++) {
        uint32_t b[4];
        hy3_ldmatrix_x4(b, tile + hy3_flash_at<D>(n * 16 + row, kk * 2 + half));
        hy3_flash_mma2(c[2 * n], c[2 * n + 1], a, b);
    }
}

/* c[16][D] += a[16][N] times the tile b[N][D] */
template <int D, int N>
HY3_DEVICE void hy3_flash_nn(float (&c)[D / 8][4], const uint32_t (&a)[N / 16][4],
                             const __nv_bfloat16 *tile)
{
    int lane = threadIdx.x & 31, row = lane & 15, half = lane >> 4;
    HY3_UNROLL
    for (int i = 0; i < N / 16; i++) {
        HY3_UNROLL
        for (int n = 0; n < D / 16; n++) {
            uint32_t b[4];
            hy3_ldmatrix_x4_trans(b, tile + hy3_flash_at<D>(i * 16 + row, n * 2 + half));
            hy3_flash_mma2(c[2 * n], c[2 * n + 1], a[i], b);
        }
    }
}

HY3_DEVICE uint32_t hy3_flash_pair(float low, float high)
{
    __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, 4);
    return bits;
}

/* Accumulators of 16 x N as A operand in bf16: both layouts give a thread the same places. */
template <int N>
HY3_DEVICE void hy3_flash_round(uint32_t (&a)[N / 16][4], const float (&c)[N / 8][4])
{
    HY3_UNROLL
    for (int i = 0; i < N / 16; i++) {
        a[i][0] = hy3_flash_pair(c[2 * i][0], c[2 * i][1]);
        a[i][1] = hy3_flash_pair(c[2 * i][2], c[2 * i][3]);
        a[i][2] = hy3_flash_pair(c[2 * i + 1][0], c[2 * i + 1][1]);
        a[i][3] = hy3_flash_pair(c[2 * i + 1][2], c[2 * i + 1][3]);
    }
}

/* Writes this warp's 16 rows of c, its upper and lower row of each thread multiplied by low and
   high, to the rows < rows of a global matrix, by way of a tile so that stores are 16 bytes wide.
   A warp touches only its own rows of the tile. */
template <int D>
HY3_DEVICE void hy3_flash_store(__nv_bfloat16 *to, int64_t stride, int rows, __nv_bfloat16 *tile,
                                const float (&c)[D / 8][4], float low, float high)
{
    constexpr int chunks = D / 8;
    int lane = threadIdx.x & 31, row0 = (int)(threadIdx.x >> 5) * 16, row = row0 + (lane >> 2);
    HY3_UNROLL
    for (int n = 0; n < chunks; n++) {
        int in_chunk = (lane & 3) * 2;
        *(uint32_t *)(tile + hy3_flash_at<D>(row, n) + in_chunk) =
            hy3_flash_pair(c[n][0] * low, c[n][1] * low);
        *(uint32_t *)(tile + hy3_flash_at<D>(row + 8, n) + in_chunk) =
            hy3_flash_pair(c[n][2] * high, c[n][3] * high);
    }
    __syncwarp();
    HY3_UNROLL
    for (int i = 0; i < 16 * chunks; i += 32) {
        int at = i + lane, r = row0 + at / chunks, chunk = at % chunks;
        if (r < rows)
            *(uint4 *)(to + r * stride + chunk * 8) =
                *(const uint4 *)(tile + hy3_flash_at<D>(r, chunk));
    }
}

/* ------------------------------------------------------------------ forward */

/* Scores of keys that a row does not see become -inf: the thread's upper row sees its columns below
 * `sees`, its lower row 8 more. */
template <int N> HY3_DEVICE void hy3_flash_hide(float (&s)[N / 8][4], int sees)
{
    HY3_UNROLL
    for (int n = 0; n < N / 8; n++) {
        HY3_UNROLL
        for (int e = 0; e < 4; e++)
            if (n * 8 + (e & 1) >= sees + (e >> 1) * 8)
                s[n][e] = -INFINITY;
    }
}

/* Scores of a step become exp(scale (score - maximum)) with the maximum so far; row_sum is of this
 * thread's columns only. What was summed with the maximum before must shrink by shrink[0] (upper
 * row) and shrink[1]. */
template <int N>
HY3_DEVICE void hy3_flash_softmax(float (&s)[N / 8][4], float (&row_max)[2], float (&row_sum)[2],
                                  float (&shrink)[2], float scale2)
{
    HY3_UNROLL
    for (int r = 0; r < 2; r++) {
        float top = row_max[r];
        HY3_UNROLL
        for (int n = 0; n < N / 8; n++)
            top = fmaxf(top, fmaxf(s[n][2 * r], s[n][2 * r + 1]));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
        top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
        /* key 0 is visible to every row, so top is finite from the first step on */
        const float base = top * scale2;
        shrink[r] = exp2f((row_max[r] - top) * scale2);
        row_max[r] = top;
        float sum = 0;
        HY3_UNROLL
        for (int n = 0; n < N / 8; n++) {
            s[n][2 * r] = exp2f(s[n][2 * r] * scale2 - base);
            s[n][2 * r + 1] = exp2f(s[n][2 * r + 1] * scale2 - base);
            sum += s[n][2 * r] + s[n][2 * r + 1];
        }
        row_sum[r] = row_sum[r] * shrink[r] + sum;
    }
}

template <int D> HY3_DEVICE void hy3_flash_rescale(float (&acc)[D / 8][4], const float (&shrink)[2])
{
    HY3_UNROLL
    for (int n = 0; n < D / 8; n++) {
        HY3_UNROLL
        for (int e = 0; e < 4; e++)
            acc[n][e] *= shrink[e >> 1];
    }
}

/* Sums of rows over the four threads that share them, and their log-sum-exp. */
HY3_DEVICE void hy3_flash_end_rows(float (&row_sum)[2], const float (&row_max)[2], float scale,
                                   float *lse, int64_t first, int rows, int Q, int head)
{
    const int lane = threadIdx.x & 31, row0 = (int)(threadIdx.x >> 5) * 16;
    HY3_UNROLL
    for (int r = 0; r < 2; r++) {
        row_sum[r] += __shfl_xor_sync(0xffffffffu, row_sum[r], 1);
        row_sum[r] += __shfl_xor_sync(0xffffffffu, row_sum[r], 2);
        const int row = row0 + (lane >> 2) + r * 8;
        if (lse && (lane & 3) == 0 && row < rows)
            lse[(first + row) * Q + head] = row_max[r] * scale + logf(row_sum[r]);
    }
}

/*
 * o = softmax(scale q k^T) v and lse. Grid (query tiles, Q), 128 threads.
 * A block: q [64, D] against all its keys in steps of 64 (FlashAttention-2, algorithm 1).
 * Shared memory: k and v, [2][64][D] each; q passes through the second stage of k.
 */
template <int D>
__global__ void __launch_bounds__(HY3_FLASH_THREADS)
    hy3_flash_forward_kernel(__nv_bfloat16 *o, float *lse, const __nv_bfloat16 *q,
                             const __nv_bfloat16 *k, const __nv_bfloat16 *v,
                             const struct hy3_query_tile *tiles, int Q, int K, float scale)
{
    constexpr int N = HY3_FLASH_ROWS, tile_size = N * D;
    HY3_DYNAMIC_SHARED(raw);
    __nv_bfloat16 *tile_k = (__nv_bfloat16 *)raw, *tile_v = tile_k + 2 * tile_size;
    const struct hy3_query_tile tile = tiles[blockIdx.x];
    const int lane = threadIdx.x & 31, row0 = (int)(threadIdx.x >> 5) * 16;
    const int head = blockIdx.y, kv_head = head / (Q / K);
    const int keys = tile.seen + tile.rows - 1, steps = (keys + N - 1) / N;
    const int64_t stride_q = (int64_t)Q * D, stride_k = (int64_t)K * D;
    const int64_t at_q = tile.q_first * stride_q + head * D;
    k += tile.kv_first * stride_k + kv_head * D;
    v += tile.kv_first * stride_k + kv_head * D;

    hy3_flash_load<D, N>(tile_k + tile_size, q + at_q, stride_q, tile.rows);
    hy3_cp_async_commit();
    hy3_flash_load<D, N>(tile_k, k, stride_k, keys);
    hy3_flash_load<D, N>(tile_v, v, stride_k, keys);
    hy3_cp_async_commit();
    hy3_cp_async_wait<1>();
    __syncthreads();
    uint32_t a_q[D / 16][4];
    HY3_UNROLL
    for (int kk = 0; kk < D / 16; kk++)
        hy3_flash_a<D>(a_q[kk], tile_k + tile_size, row0, kk);

    /* a thread holds rows row0 + lane/4 (index 0) and 8 below (1) */
    float acc[D / 8][4] = {}, row_max[2] = {-INFINITY, -INFINITY}, row_sum[2] = {};
    const float scale2 = scale * HY3_FLASH_LOG2E;
    for (int step = 0; step < steps; step++) {
        const int key0 = step * N, next = key0 + N, stage = (step & 1) * tile_size;
        hy3_cp_async_wait<0>();
        __syncthreads(); /* this step's tiles are there, the last step's are no longer read */
        if (next < keys) {
            hy3_flash_load<D, N>(tile_k + (tile_size - stage), k + next * stride_k, stride_k,
                                 keys - next);
            hy3_flash_load<D, N>(tile_v + (tile_size - stage), v + next * stride_k, stride_k,
                                 keys - next);
            hy3_cp_async_commit();
        }
        if (row0 >= tile.rows || key0 >= tile.seen + row0 + 15)
            continue; /* the whole warp sees nothing here; never so in step 0 for a used row */

        float s[N / 8][4] = {};
        HY3_UNROLL
        for (int kk = 0; kk < D / 16; kk++)
            hy3_flash_nt<D, N>(s, a_q[kk], tile_k + stage, kk);
        if (next > tile.seen + row0) /* else all of it is visible to all rows */
            hy3_flash_hide<N>(s, tile.seen + row0 + (lane >> 2) - key0 - (lane & 3) * 2);
        float shrink[2];
        hy3_flash_softmax<N>(s, row_max, row_sum, shrink, scale2);
        hy3_flash_rescale<D>(acc, shrink);
        uint32_t p[N / 16][4];
        hy3_flash_round<N>(p, s);
        hy3_flash_nn<D, N>(acc, p, tile_v + stage);
    }

    hy3_flash_end_rows(row_sum, row_max, scale, lse, tile.q_first, tile.rows, Q, head);
    __syncthreads(); /* the tiles are free now */
    hy3_flash_store<D>(o + at_q, stride_q, tile.rows, tile_k, acc, 1 / row_sum[0], 1 / row_sum[1]);
}

template <int D> cudaError_t hy3_flash_forward(const struct hy3_flash *a, cudaStream_t stream)
{
    const int bytes = 4 * HY3_FLASH_ROWS * D * (int)sizeof(__nv_bfloat16);
    if (a->query_tiles == 0)
        return cudaSuccess;
    cudaError_t error = cudaFuncSetAttribute((const void *)hy3_flash_forward_kernel<D>,
                                             cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess)
        return error;
    HY3_LAUNCH(hy3_flash_forward_kernel<D>, dim3(a->query_tiles, a->Q), HY3_FLASH_THREADS, bytes,
               stream, a->o, a->lse, a->q, a->k, a->v, a->query_tile, a->Q, a->K, a->scale);
    return cudaGetLastError();
}

/* ------------------------------------------------------------------ backward */

/* delta[t, h] = sum over d of dout * o, in fp32. o, dout: [heads, D] with heads = Tq Q. One warp
   per head, 4 per block (FlashAttention-2, algorithm 2, line 4). */
template <int D>
__global__ void __launch_bounds__(HY3_FLASH_THREADS)
    hy3_flash_delta_kernel(float *delta, const __nv_bfloat16 *o, const __nv_bfloat16 *dout,
                           int64_t heads)
{
    const int64_t head = (int64_t)blockIdx.x * 4 + (threadIdx.x >> 5);
    const int lane = threadIdx.x & 31;
    if (head >= heads)
        return; /* the whole warp */
    float sum = 0;
    HY3_UNROLL
    for (int i = 0; i < D; i += 64) {
        int d = i + lane * 2;
        if (d < D) {
            float2 x = __bfloat1622float2(*(const __nv_bfloat162 *)(o + head * D + d));
            float2 y = __bfloat1622float2(*(const __nv_bfloat162 *)(dout + head * D + d));
            sum += x.x * y.x + x.y * y.y;
        }
    }
    HY3_UNROLL
    for (int i = 16; i; i >>= 1)
        sum += __shfl_xor_sync(0xffffffffu, sum, i);
    if (lane == 0)
        delta[head] = sum;
}

template <int D> cudaError_t hy3_flash_delta(const struct hy3_flash *a, cudaStream_t stream)
{
    const int64_t heads = a->Tq * a->Q;
    if (heads == 0)
        return cudaSuccess;
    HY3_LAUNCH(hy3_flash_delta_kernel<D>, dim3((unsigned)((heads + 3) / 4)), HY3_FLASH_THREADS, 0,
               stream, a->delta, a->o, a->dout, heads);
    return cudaGetLastError();
}

/* lse, in log2, and delta of the thread's two rows. */
HY3_DEVICE void hy3_flash_row_stats(float (&row_lse)[2], float (&row_delta)[2], const float *lse,
                                    const float *delta, int64_t first, int rows, int Q, int head)
{
    const int lane = threadIdx.x & 31, row0 = (int)(threadIdx.x >> 5) * 16;
    HY3_UNROLL
    for (int r = 0; r < 2; r++) {
        const int row = row0 + (lane >> 2) + r * 8;
        row_lse[r] = row_delta[r] = 0;
        if (row < rows) {
            row_lse[r] = lse[(first + row) * Q + head] * HY3_FLASH_LOG2E;
            row_delta[r] = delta[(first + row) * Q + head];
        }
    }
}

/* Scores become P = exp(scale score - lse) where the row sees the key, else 0; `sees` as in
 * hy3_flash_hide. */
template <int N>
HY3_DEVICE void hy3_flash_p(float (&s)[N / 8][4], const float (&row_lse)[2], float scale2, int sees)
{
    HY3_UNROLL
    for (int n = 0; n < N / 8; n++) {
        HY3_UNROLL
        for (int e = 0; e < 4; e++) {
            const int r = e >> 1;
            const float p = exp2f(s[n][e] * scale2 - row_lse[r]);
            /* a choice, not a product: p of a hidden key may be infinite */
            s[n][e] = n * 8 + (e & 1) < sees + r * 8 ? p : 0.0f;
        }
    }
}

/* P becomes dS = P (dP - delta). */
template <int N>
HY3_DEVICE void hy3_flash_ds(float (&p)[N / 8][4], const float (&dp)[N / 8][4],
                             const float (&row_delta)[2])
{
    HY3_UNROLL
    for (int n = 0; n < N / 8; n++) {
        HY3_UNROLL
        for (int e = 0; e < 4; e++)
            p[n][e] *= dp[n][e] - row_delta[e >> 1];
    }
}

/*
 * dq = scale dS k with P = exp(scale q k^T - lse), dS = P (dout v^T - delta).
 * Grid (query tiles, Q), 128 threads; the loops of the forward (FlashAttention-2, algorithm 2,
 * with the query tile outside, so that dq needs no atomics).
 * A step works on 64 keys in halves of 32, so that both score tiles fit the registers beside the
 * fragments of q and dout.
 * Shared memory: k and v, [2][64][D] each; q and dout pass through the second stage.
 */
template <int D>
__global__ void __launch_bounds__(HY3_FLASH_THREADS)
    hy3_flash_dq_kernel(__nv_bfloat16 *dq, const __nv_bfloat16 *q, const __nv_bfloat16 *k,
                        const __nv_bfloat16 *v, const __nv_bfloat16 *dout, const float *lse,
                        const float *delta, const struct hy3_query_tile *tiles, int Q, int K,
                        float scale)
{
    constexpr int N = HY3_FLASH_ROWS, H = N / 2, tile_size = N * D;
    HY3_DYNAMIC_SHARED(raw);
    __nv_bfloat16 *tile_k = (__nv_bfloat16 *)raw, *tile_v = tile_k + 2 * tile_size;
    const struct hy3_query_tile tile = tiles[blockIdx.x];
    const int lane = threadIdx.x & 31, row0 = (int)(threadIdx.x >> 5) * 16;
    const int head = blockIdx.y, kv_head = head / (Q / K);
    const int keys = tile.seen + tile.rows - 1, steps = (keys + N - 1) / N;
    const int64_t stride_q = (int64_t)Q * D, stride_k = (int64_t)K * D;
    const int64_t at_q = tile.q_first * stride_q + head * D;
    k += tile.kv_first * stride_k + kv_head * D;
    v += tile.kv_first * stride_k + kv_head * D;

    hy3_flash_load<D, N>(tile_k + tile_size, q + at_q, stride_q, tile.rows);
    hy3_flash_load<D, N>(tile_v + tile_size, dout + at_q, stride_q, tile.rows);
    hy3_cp_async_commit();
    hy3_flash_load<D, N>(tile_k, k, stride_k, keys);
    hy3_flash_load<D, N>(tile_v, v, stride_k, keys);
    hy3_cp_async_commit();

    float row_lse[2], row_delta[2];
    hy3_flash_row_stats(row_lse, row_delta, lse, delta, tile.q_first, tile.rows, Q, head);
    hy3_cp_async_wait<1>();
    __syncthreads();
    uint32_t a_q[D / 16][4], a_do[D / 16][4];
    HY3_UNROLL
    for (int kk = 0; kk < D / 16; kk++) {
        hy3_flash_a<D>(a_q[kk], tile_k + tile_size, row0, kk);
        hy3_flash_a<D>(a_do[kk], tile_v + tile_size, row0, kk);
    }

    float acc[D / 8][4] = {};
    const float scale2 = scale * HY3_FLASH_LOG2E;
    for (int step = 0; step < steps; step++) {
        const int key0 = step * N, next = key0 + N, stage = (step & 1) * tile_size;
        hy3_cp_async_wait<0>();
        __syncthreads(); /* this step's tiles are there, the last step's are no longer read */
        if (next < keys) {
            hy3_flash_load<D, N>(tile_k + (tile_size - stage), k + next * stride_k, stride_k,
                                 keys - next);
            hy3_flash_load<D, N>(tile_v + (tile_size - stage), v + next * stride_k, stride_k,
                                 keys - next);
            hy3_cp_async_commit();
        }
        if (row0 >= tile.rows)
            continue;
#ifdef __CUDACC__
#    pragma unroll 1 /* unrolled, it would spill */
#endif
        for (int half = 0; half < N; half += H) {
            if (key0 + half >= tile.seen + row0 + 15)
                break; /* the whole warp sees nothing here */
            const __nv_bfloat16 *now_k = tile_k + stage + half * D;
            const __nv_bfloat16 *now_v = tile_v + stage + half * D;
            float s[H / 8][4] = {}, dp[H / 8][4] = {};
            HY3_UNROLL
            for (int kk = 0; kk < D / 16; kk++) {
                hy3_flash_nt<D, H>(s, a_q[kk], now_k, kk);
                hy3_flash_nt<D, H>(dp, a_do[kk], now_v, kk);
            }
            hy3_flash_p<H>(s, row_lse, scale2,
                           tile.seen + row0 + (lane >> 2) - key0 - half - (lane & 3) * 2);
            hy3_flash_ds<H>(s, dp, row_delta);
            uint32_t a[H / 16][4];
            hy3_flash_round<H>(a, s);
            hy3_flash_nn<D, H>(acc, a, now_k);
        }
    }
    __syncthreads(); /* the tiles are free now */
    hy3_flash_store<D>(dq + at_q, stride_q, tile.rows, tile_k, acc, scale, scale);
}

template <int D> cudaError_t hy3_flash_dq(const struct hy3_flash *a, cudaStream_t stream)
{
    const int bytes = 4 * HY3_FLASH_ROWS * D * (int)sizeof(__nv_bfloat16);
    if (a->query_tiles == 0)
        return cudaSuccess;
    cudaError_t error = cudaFuncSetAttribute((const void *)hy3_flash_dq_kernel<D>,
                                             cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess)
        return error;
    HY3_LAUNCH(hy3_flash_dq_kernel<D>, dim3(a->query_tiles, a->Q), HY3_FLASH_THREADS, bytes, stream,
               a->dq, a->q, a->k, a->v, a->dout, a->lse, a->delta, a->query_tile, a->Q, a->K,
               a->scale);
    return cudaGetLastError();
}

/* lse (in log2) or delta of query `at` of a key tile's queries, which exist below count; the first
 * STEP threads ask for lse. */
template <int STEP>
HY3_DEVICE float hy3_flash_stat(const float *lse, const float *delta, int64_t first, int at,
                                int count, int Q, int head)
{
    const bool is_lse = threadIdx.x < STEP;
    if (at >= count)
        return 0.0f;
    const float x = (is_lse ? lse : delta)[(first + at) * Q + head];
    return is_lse ? x * HY3_FLASH_LOG2E : x;
}

/* hy3_flash_p of transposed scores, a row a key; lse [N] of the columns. The thread's upper row is
 * seen by columns from `hides` on, its lower row from 8 more. */
template <int N>
HY3_DEVICE void hy3_flash_p_columns(float (&s)[N / 8][4], const float *lse, float scale2, int hides)
{
    const int lane = threadIdx.x & 31;
    HY3_UNROLL
    for (int n = 0; n < N / 8; n++) {
        const float2 l = *(const float2 *)(lse + n * 8 + (lane & 3) * 2);
        HY3_UNROLL
        for (int e = 0; e < 4; e++) {
            const float p = exp2f(s[n][e] * scale2 - (e & 1 ? l.y : l.x));
            s[n][e] = n * 8 + (e & 1) >= hides + (e >> 1) * 8 ? p : 0.0f; /* see hy3_flash_p */
        }
    }
}

/* dP becomes dS = P (dP - delta), all transposed; delta [N] of the columns. */
template <int N>
HY3_DEVICE void hy3_flash_ds_columns(float (&dp)[N / 8][4], const float (&p)[N / 8][4],
                                     const float *delta)
{
    const int lane = threadIdx.x & 31;
    HY3_UNROLL
    for (int n = 0; n < N / 8; n++) {
        const float2 d = *(const float2 *)(delta + n * 8 + (lane & 3) * 2);
        HY3_UNROLL
        for (int e = 0; e < 4; e++)
            dp[n][e] = p[n][e] * (dp[n][e] - (e & 1 ? d.y : d.x));
    }
}

/*
 * dv = P^T dout and dk = scale dS^T q, P and dS as above, summed over the group's query heads.
 * Grid (key tiles, K), 128 threads. A block: 64 keys against their queries in steps of 32, head
 * after head (FlashAttention-2, algorithm 2). Scores are made transposed, k q^T and v dout^T, so
 * that P^T and dS^T are A operands as they lie in the accumulators.
 * Shared memory: k, v: [64][D]; q, dout: [2][32][D]; lse and delta: [2][2][32] fp32.
 */
template <int D>
__global__ void __launch_bounds__(HY3_FLASH_THREADS)
    hy3_flash_dkdv_kernel(__nv_bfloat16 *dk, __nv_bfloat16 *dv, const __nv_bfloat16 *q,
                          const __nv_bfloat16 *k, const __nv_bfloat16 *v, const __nv_bfloat16 *dout,
                          const float *lse, const float *delta, const struct hy3_key_tile *tiles,
                          int Q, int K, float scale)
{
    constexpr int M = HY3_FLASH_ROWS, N = HY3_FLASH_STEP, step_size = N * D;
    HY3_DYNAMIC_SHARED(raw);
    __nv_bfloat16 *tile_k = (__nv_bfloat16 *)raw, *tile_v = tile_k + M * D;
    __nv_bfloat16 *tile_q = tile_v + M * D, *tile_do = tile_q + 2 * step_size;
    float *stat = (float *)(tile_do + 2 * step_size);
    const struct hy3_key_tile tile = tiles[blockIdx.x];
    const int lane = threadIdx.x & 31, row0 = (int)(threadIdx.x >> 5) * 16;
    const int kv_head = blockIdx.y, group = Q / K;
    const int64_t stride_q = (int64_t)Q * D, stride_k = (int64_t)K * D;
    const int64_t at_k = tile.kv_first * stride_k + kv_head * D;

    /* drop the queries in front that see no key of the tile; query j then sees i <= before + j */
    const int blind = tile.before < 0 ? -tile.before : 0, before = tile.before + blind;
    const int count = tile.q_count > blind ? tile.q_count - blind : 0;
    const int64_t first = (int64_t)tile.q_first + blind;
    const int steps_per_head = (count + N - 1) / N, steps = steps_per_head * group;
    const bool keeps_stat = threadIdx.x < 2 * N;

    hy3_flash_load<D, M>(tile_k, k + at_k, stride_k, tile.rows);
    hy3_flash_load<D, M>(tile_v, v + at_k, stride_k, tile.rows);
    if (steps > 0) {
        const int64_t at = first * stride_q + kv_head * group * D;
        hy3_flash_load<D, N>(tile_q, q + at, stride_q, count);
        hy3_flash_load<D, N>(tile_do, dout + at, stride_q, count);
        if (keeps_stat)
            stat[threadIdx.x] =
                hy3_flash_stat<N>(lse, delta, first, lane, count, Q, kv_head * group);
    }
    hy3_cp_async_commit();

    float acc_k[D / 8][4] = {}, acc_v[D / 8][4] = {};
    const float scale2 = scale * HY3_FLASH_LOG2E;
    int query0 = 0, head = kv_head * group; /* of this step */
    for (int step = 0; step < steps; step++) {
        const int stage = step & 1;
        int next_query0 = query0 + N, next_head = head;
        if (next_query0 >= count)
            next_query0 = 0, next_head++;
        hy3_cp_async_wait<0>();
        __syncthreads(); /* this step's tiles are there, the last step's are no longer read */
        float next_stat = 0;
        if (step + 1 < steps) {
            const int64_t at = (first + next_query0) * stride_q + next_head * D;
            const int to = (stage ^ 1) * step_size;
            hy3_flash_load<D, N>(tile_q + to, q + at, stride_q, count - next_query0);
            hy3_flash_load<D, N>(tile_do + to, dout + at, stride_q, count - next_query0);
            hy3_cp_async_commit();
            if (keeps_stat) /* stored after the products, which hide the time of the load */
                next_stat =
                    hy3_flash_stat<N>(lse, delta, first, next_query0 + lane, count, Q, next_head);
        }
        if (row0 < tile.rows && row0 <= before + query0 + N - 1) { /* else the warp is not seen */
            const __nv_bfloat16 *now_q = tile_q + stage * step_size;
            const __nv_bfloat16 *now_do = tile_do + stage * step_size;
            const float *now_stat = stat + stage * 2 * N;
            float s[N / 8][4] = {}, dp[N / 8][4] = {};
            HY3_UNROLL
            for (int kk = 0; kk < D / 16; kk++) {
                uint32_t a[4];
                hy3_flash_a<D>(a, tile_k, row0, kk);
                hy3_flash_nt<D, N>(s, a, now_q, kk);
            }
            HY3_UNROLL
            for (int kk = 0; kk < D / 16; kk++) {
                uint32_t a[4];
                hy3_flash_a<D>(a, tile_v, row0, kk);
                hy3_flash_nt<D, N>(dp, a, now_do, kk);
            }
            /* element (key, query): seen iff row0 + lane/4 + 8r <= before + query0 + column */
            hy3_flash_p_columns<N>(s, now_stat, scale2,
                                   row0 + (lane >> 2) - before - query0 - (lane & 3) * 2);
            hy3_flash_ds_columns<N>(dp, s, now_stat + N);
            uint32_t a[N / 16][4];
            hy3_flash_round<N>(a, s);
            hy3_flash_nn<D, N>(acc_v, a, now_do);
            hy3_flash_round<N>(a, dp);
            hy3_flash_nn<D, N>(acc_k, a, now_q);
        }
        if (step + 1 < steps && keeps_stat)
            stat[(stage ^ 1) * 2 * N + threadIdx.x] = next_stat;
        query0 = next_query0, head = next_head;
    }
    hy3_cp_async_wait<0>();
    __syncthreads(); /* the tiles are free now */
    hy3_flash_store<D>(dk + at_k, stride_k, tile.rows, tile_k, acc_k, scale, scale);
    hy3_flash_store<D>(dv + at_k, stride_k, tile.rows, tile_v, acc_v, 1.0f, 1.0f);
}

template <int D> cudaError_t hy3_flash_dkdv(const struct hy3_flash *a, cudaStream_t stream)
{
    const int bytes = (2 * HY3_FLASH_ROWS + 4 * HY3_FLASH_STEP) * D * (int)sizeof(__nv_bfloat16) +
                      4 * HY3_FLASH_STEP * (int)sizeof(float);
    if (a->key_tiles == 0)
        return cudaSuccess;
    cudaError_t error = cudaFuncSetAttribute((const void *)hy3_flash_dkdv_kernel<D>,
                                             cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (error != cudaSuccess)
        return error;
    HY3_LAUNCH(hy3_flash_dkdv_kernel<D>, dim3(a->key_tiles, a->K), HY3_FLASH_THREADS, bytes, stream,
               a->dk, a->dv, a->q, a->k, a->v, a->dout, a->lse, a->delta, a->key_tile, a->Q, a->K,
               a->scale);
    return cudaGetLastError();
}

#endif
