/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flash.cuh - what the attention kernels of flash_ampere.cuh and flash_hopper.cuh share.
 *
 * Causal attention over packed samples, forward and backward, bf16. Algorithm: FlashAttention-2
 * (Dao 2023, arXiv 2307.08691): tiles of scores never leave the registers, softmax is rescaled
 * online, the backward recomputes the scores from lse. Accumulators lie as the m16n8 tiles of
 * mma.sync in both: a warp has 16 rows of the block's tile, a thread two of them, 8 apart.
 *
 *   q, o, dout, dq: [Tq, Q, D] bf16    k, v, dk, dv: [Tk, K, D] bf16    lse, delta: [Tq, Q] fp32
 *
 * Query head h uses kv head h / (Q / K). All sums are fp32 in a fixed order, without atomics, so
 * results do not depend on the schedule. Pointers must be 16-byte aligned; scale must be > 0.
 */
#pragma once

#include "cuda/tiles.h"

#include <string.h>

/* Arguments of all attention kernels, as in struct hy3_attention. */
template <class T> struct hy3_attend {
    int Q, K, D;
    float scale;
    const struct hy3_query_tile *query_tiles;
    const struct hy3_key_tile *key_tiles;
    const T *q, *k, *v;
    T *o;
    float *lse; /* the forward skips it if NULL */
    const T *dout;
    T *dq, *dk, *dv; /* dk and dv: fp32, and +=, if `accumulate` */
    bool accumulate;
    float *delta; /* scratch memory of the backward */
};

enum { HY3_AMPERE_THREADS = 128, HY3_HOPPER_THREADS = 256 }; /* of a block */

#define HY3_FLASH_LOG2E 1.4426950408889634f

/* Bytes of shared memory of a block, for rows of [D] bf16 and for fp32 numbers. */
template <int D> constexpr int hy3_flash_bytes(int rows, int floats)
{
    return rows * D * (int)sizeof(bf16) + floats * (int)sizeof(float);
}

/* ---- tiles ---- */

/* Place (in elements) of a 16-byte chunk in a tile [rows][D] in shared memory. The xor puts the
 * same chunk of 8 adjacent rows into 8 different bank groups, so that ldmatrix has no conflicts;
 * rows shorter than the 128 bytes of all banks share a line, hence the division. */
template <int D> HY3_DEVICE int hy3_ampere_at(int row, int chunk)
{
    constexpr int chunks = D / 8;
    constexpr int shared_by = chunks < 8 ? 8 / chunks : 1;
    constexpr int mask = chunks < 8 ? chunks - 1 : 7;
    return row * D + ((chunk ^ (row / shared_by & mask)) << 3);
}

/* The same in a tile of N rows for warpgroup products: columns in blocks of 64, chunks swizzled by
 * the row (hy3_wgmma_tile). */
template <int N> HY3_DEVICE int hy3_hopper_at(int row, int chunk)
{
    return (chunk >> 3) * N * 64 + row * 64 + ((chunk ^ row) & 7) * 8;
}

/* Starts the copy of rows 0 .. rows-1 of a global [..][D] matrix into a tile of N rows, for
 * flash_hopper.cuh if `hopper`. The other rows become zeros and their addresses are never formed:
 * the next sample, or nothing, is there, and leftover bits could be NaN, which 0 * NaN would
 * spread. */
template <int D, int N, bool hopper>
HY3_DEVICE void hy3_flash_load(bf16 *tile, const bf16 *from, int64_t stride, int rows)
{
    constexpr int chunks = D / 8, all = N * chunks;
    constexpr int threads = hopper ? HY3_HOPPER_THREADS : HY3_AMPERE_THREADS;
    HY3_UNROLL
    for (int i = 0; i < all; i += threads) {
        int at = i + (int)threadIdx.x, row = at / chunks, chunk = at % chunks;
        if (all % threads == 0 || at < all) {
            bf16 *to =
                tile + (hopper ? hy3_hopper_at<N>(row, chunk) : hy3_ampere_at<D>(row, chunk));
            if (row < rows)
                hy3_cp_async16(to, from + row * stride + chunk * 8);
            else
                *(uint4 *)to = make_uint4(0, 0, 0, 0);
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

/* Accumulators of 16 x N as bf16 A operands: a thread holds the same places in both layouts. */
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

/* Writes this warp's 16 rows of c, each thread's upper row times `upper` and its lower row times
 * `lower`, to those rows of a global matrix that are below `rows`. They pass through a tile, so
 * that stores are 16 bytes wide; a warp uses only its own rows of the tile. */
template <int D>
HY3_DEVICE void hy3_flash_store(bf16 *to, int64_t stride, int rows, bf16 *tile,
                                const float (&c)[D / 8][4], float upper, float lower)
{
    constexpr int chunks = D / 8;
    int lane = threadIdx.x & 31, row0 = (int)(threadIdx.x >> 5) * 16, row = row0 + (lane >> 2);
    HY3_UNROLL
    for (int n = 0; n < chunks; n++) {
        int in_chunk = (lane & 3) * 2;
        *(uint32_t *)(tile + hy3_ampere_at<D>(row, n) + in_chunk) =
            hy3_flash_pair(c[n][0] * upper, c[n][1] * upper);
        *(uint32_t *)(tile + hy3_ampere_at<D>(row + 8, n) + in_chunk) =
            hy3_flash_pair(c[n][2] * lower, c[n][3] * lower);
    }
    __syncwarp();
    HY3_UNROLL
    for (int i = 0; i < 16 * chunks; i += 32) {
        int at = i + lane, r = row0 + at / chunks, chunk = at % chunks;
        if (r < rows)
            *(uint4 *)(to + r * stride + chunk * 8) =
                *(const uint4 *)(tile + hy3_ampere_at<D>(r, chunk));
    }
}

/* All copies begun so far have arrived, for all threads, and no thread still reads what was there
 * before this step. */
HY3_DEVICE void hy3_flash_arrive()
{
    hy3_cp_async_wait<0>();
    __syncthreads();
}

/* ---- a tile of queries against its keys: the forward, and dq ---- */

/* What a block works on; one query head. */
struct hy3_flash_queries {
    struct hy3_query_tile tile;
    int head, row0;             /* row0: the warp's first row in the tile */
    int keys;                   /* that any row sees */
    int sees;                   /* as in hy3_flash_hide, counted from key 0 */
    int64_t stride_q, stride_k; /* elements from row to row */
    int64_t at_q;               /* element of q, o, dout and dq where the tile begins */
    const bf16 *k, *v;          /* key 0 */
    float scale2;               /* of scores, in units of log2 */
};

template <int D>
HY3_DEVICE struct hy3_flash_queries hy3_flash_find_queries(const struct hy3_attend<bf16> &a,
                                                           unsigned number)
{
    const int lane = threadIdx.x & 31, kv_head = (int)blockIdx.y / (a.Q / a.K);
    struct hy3_flash_queries b;
    b.tile = a.query_tiles[number];
    b.head = blockIdx.y;
    b.row0 = (int)(threadIdx.x >> 5) * 16;
    b.keys = b.tile.seen + b.tile.rows - 1;
    b.sees = b.tile.seen + b.row0 + (lane >> 2) - (lane & 3) * 2;
    b.stride_q = (int64_t)a.Q * D;
    b.stride_k = (int64_t)a.K * D;
    b.at_q = b.tile.q_first * b.stride_q + b.head * D;
    b.k = a.k + b.tile.kv_first * b.stride_k + kv_head * D;
    b.v = a.v + b.tile.kv_first * b.stride_k + kv_head * D;
    b.scale2 = a.scale * HY3_FLASH_LOG2E;
    return b;
}

/* Starts the copy of N keys, or of their values, from key0 on. */
template <int D, int N, bool hopper>
HY3_DEVICE void hy3_flash_load_keys(bf16 *tile, const bf16 *from, const struct hy3_flash_queries &b,
                                    int key0)
{
    hy3_flash_load<D, N, hopper>(tile, from + key0 * b.stride_k, b.stride_k, b.keys - key0);
}

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

/* The end of the forward: sums of rows over the four threads that share them, lse and o. */
template <int D>
HY3_DEVICE void hy3_flash_end_forward(const struct hy3_attend<bf16> &a,
                                      const struct hy3_flash_queries &b, bf16 *tile,
                                      const float (&acc)[D / 8][4], const float (&row_max)[2],
                                      float (&row_sum)[2])
{
    const int lane = threadIdx.x & 31;
    HY3_UNROLL
    for (int r = 0; r < 2; r++) {
        row_sum[r] += __shfl_xor_sync(0xffffffffu, row_sum[r], 1);
        row_sum[r] += __shfl_xor_sync(0xffffffffu, row_sum[r], 2);
        const int row = b.row0 + (lane >> 2) + r * 8;
        if (a.lse && (lane & 3) == 0 && row < b.tile.rows)
            a.lse[(int64_t)(b.tile.q_first + row) * a.Q + b.head] =
                row_max[r] * a.scale + logf(row_sum[r]);
    }
    hy3_flash_arrive();
    hy3_flash_store<D>(a.o + b.at_q, b.stride_q, b.tile.rows, tile, acc, 1 / row_sum[0],
                       1 / row_sum[1]);
}

/* delta[row] = sum over d of dout * o, in fp32, for rows of [Tq, Q]. One warp per row
 * (FlashAttention-2, algorithm 2, line 4). */
template <int D>
__global__ void __launch_bounds__(HY3_AMPERE_THREADS)
    hy3_flash_delta_kernel(const struct hy3_attend<bf16> a, int64_t rows)
{
    const int64_t row = (int64_t)blockIdx.x * (HY3_AMPERE_THREADS / 32) + (threadIdx.x >> 5);
    const int lane = threadIdx.x & 31;
    if (row >= rows)
        return; /* the whole warp */
    float sum = 0;
    HY3_UNROLL
    for (int i = 0; i < D; i += 64) {
        int d = i + lane * 2;
        if (d < D) {
            float2 x = __bfloat1622float2(*(const __nv_bfloat162 *)(a.o + row * D + d));
            float2 y = __bfloat1622float2(*(const __nv_bfloat162 *)(a.dout + row * D + d));
            sum += x.x * y.x + x.y * y.y;
        }
    }
    sum = warp_sum(sum);
    if (lane == 0)
        a.delta[row] = sum;
}

/* lse, in units of log2, and delta of the thread's two rows. */
HY3_DEVICE void hy3_flash_row_stats(float (&row_lse)[2], float (&row_delta)[2],
                                    const struct hy3_attend<bf16> &a,
                                    const struct hy3_flash_queries &b)
{
    const int lane = threadIdx.x & 31;
    HY3_UNROLL
    for (int r = 0; r < 2; r++) {
        const int row = b.row0 + (lane >> 2) + r * 8;
        const int64_t at = (int64_t)(b.tile.q_first + row) * a.Q + b.head;
        row_lse[r] = row_delta[r] = 0;
        if (row < b.tile.rows) {
            row_lse[r] = a.lse[at] * HY3_FLASH_LOG2E;
            row_delta[r] = a.delta[at];
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

/* ---- a tile of keys against its queries: dk and dv ---- */

/* What a block works on; one key-value head and the query heads of its group. */
struct hy3_flash_keys {
    struct hy3_key_tile tile;
    int kv_head, group, row0;   /* row0: the warp's first row in the tile */
    int64_t first;              /* row of query 0, the first that sees any key of the tile */
    int count, before;          /* queries; query j sees key i if i <= before + j */
    int hides;                  /* as in hy3_flash_p_columns, counted from query 0 */
    int64_t stride_q, stride_k; /* elements from row to row */
    int64_t at_k;               /* element of k, v, dk and dv where the tile begins */
    float scale2;               /* of scores, in units of log2 */
};

/* Queries of a step, from query0 on. */
struct hy3_flash_step {
    int query0, head;
};

template <int D>
HY3_DEVICE struct hy3_flash_keys hy3_flash_find_keys(const struct hy3_attend<bf16> &a)
{
    const int lane = threadIdx.x & 31;
    struct hy3_flash_keys b;
    b.tile = a.key_tiles[blockIdx.x];
    b.kv_head = blockIdx.y;
    b.group = a.Q / a.K;
    b.row0 = (int)(threadIdx.x >> 5) * 16;
    const int blind = b.tile.before < 0 ? -b.tile.before : 0; /* queries that see no key of it */
    b.first = (int64_t)b.tile.q_first + blind;
    b.count = b.tile.q_count > blind ? b.tile.q_count - blind : 0;
    b.before = b.tile.before + blind;
    b.hides = b.row0 + (lane >> 2) - b.before - (lane & 3) * 2;
    b.stride_q = (int64_t)a.Q * D;
    b.stride_k = (int64_t)a.K * D;
    b.at_k = b.tile.kv_first * b.stride_k + b.kv_head * D;
    b.scale2 = a.scale * HY3_FLASH_LOG2E;
    return b;
}

/* The next N queries, or the first ones of the next head. */
template <int N>
HY3_DEVICE struct hy3_flash_step hy3_flash_next(const struct hy3_flash_keys &b,
                                                struct hy3_flash_step step)
{
    step.query0 += N;
    if (step.query0 >= b.count)
        step.query0 = 0, step.head++;
    return step;
}

/* Starts the copy of a step's q and dout. */
template <int D, int N, bool hopper>
HY3_DEVICE void hy3_flash_load_queries(bf16 *tile_q, bf16 *tile_do,
                                       const struct hy3_attend<bf16> &a,
                                       const struct hy3_flash_keys &b, struct hy3_flash_step step)
{
    const int64_t at = (b.first + step.query0) * b.stride_q + step.head * D;
    hy3_flash_load<D, N, hopper>(tile_q, a.q + at, b.stride_q, b.count - step.query0);
    hy3_flash_load<D, N, hopper>(tile_do, a.dout + at, b.stride_q, b.count - step.query0);
}

/* What this thread, one of the first 2 N, keeps of a step: lse (in units of log2) or delta of a
 * query, lse in the first N threads. */
template <int N>
HY3_DEVICE float hy3_flash_stat(const struct hy3_attend<bf16> &a, const struct hy3_flash_keys &b,
                                struct hy3_flash_step step)
{
    const int at = step.query0 + (int)(threadIdx.x % N);
    const bool is_lse = threadIdx.x < N;
    if (at >= b.count)
        return 0.0f;
    const float x = (is_lse ? a.lse : a.delta)[(b.first + at) * a.Q + step.head];
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

/* Adds this warp's 16 rows of c times `factor` to those rows of a global fp32 matrix that are below
 * `rows`. */
template <int D>
HY3_DEVICE void hy3_flash_add(float *to, int64_t stride, int rows, const float (&c)[D / 8][4],
                              float factor)
{
    const int lane = threadIdx.x & 31, row = (int)(threadIdx.x >> 5) * 16 + (lane >> 2);
    HY3_UNROLL
    for (int n = 0; n < D / 8; n++) {
        HY3_UNROLL
        for (int r = 0; r < 2; r++) {
            float2 *at = (float2 *)(to + (row + 8 * r) * stride + n * 8 + (lane & 3) * 2);
            if (row + 8 * r < rows) {
                float2 sum = *at;
                sum.x += c[n][2 * r] * factor;
                sum.y += c[n][2 * r + 1] * factor;
                *at = sum;
            }
        }
    }
}

/* The end of dk and dv. */
template <int D>
HY3_DEVICE void hy3_flash_end_keys(const struct hy3_attend<bf16> &a, const struct hy3_flash_keys &b,
                                   bf16 *tile_k, bf16 *tile_v, const float (&acc_k)[D / 8][4],
                                   const float (&acc_v)[D / 8][4])
{
    if (a.accumulate) {
        hy3_flash_add<D>((float *)a.dk + b.at_k, b.stride_k, b.tile.rows, acc_k, a.scale);
        hy3_flash_add<D>((float *)a.dv + b.at_k, b.stride_k, b.tile.rows, acc_v, 1.0f);
        return;
    }
    hy3_flash_arrive();
    hy3_flash_store<D>(a.dk + b.at_k, b.stride_k, b.tile.rows, tile_k, acc_k, a.scale, a.scale);
    hy3_flash_store<D>(a.dv + b.at_k, b.stride_k, b.tile.rows, tile_v, acc_v, 1.0f, 1.0f);
}
