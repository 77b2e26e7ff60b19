/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flash_hopper.cuh - flash.cuh's attention with the warpgroup products of compute capability 9.0
 * (H100, H200): forward, dq, dk and dv.
 *
 * The tensor cores read both operands of the scores, and the second one of every product, from
 * shared memory, so that nothing is loaded into fragments but what the softmax makes. A warpgroup
 * of 128 threads owns 64 rows; its accumulators lie as four warps' m16n8 tiles, so what is done
 * with them is flash.cuh's. Same sums in the same order on every run; no atomics. Source, besides
 * flash.cuh's: Shah et al. 2024 (FlashAttention-3, arXiv 2407.08608), section 3.2: scores of a step
 * run beside the weighted sum of the step before.
 */
#ifndef HY3_CUDA_FLASH_HOPPER_H
#define HY3_CUDA_FLASH_HOPPER_H

#include "cuda/flash.cuh"

enum {
    HY3_HOPPER_THREADS = 256, /* two warpgroups */
    HY3_HOPPER_ROWS = 128,    /* of a tile in a work list */
    HY3_HOPPER_KEYS = 128,    /* in a step of the forward */
    HY3_HOPPER_STEP =
        64, /* keys or queries in a step of the backward: more would not fit the registers */
    HY3_HOPPER_ALIGNMENT = 1024 /* bytes, of every tile: the swizzle goes by addresses */
};

HY3_DEVICE __nv_bfloat16 *hy3_hopper_shared(unsigned char *raw)
{
    uintptr_t at =
        ((uintptr_t)raw + HY3_HOPPER_ALIGNMENT - 1) & ~(uintptr_t)(HY3_HOPPER_ALIGNMENT - 1);

    return (__nv_bfloat16 *)at;
}

/* Starts the copy of rows 0 .. rows-1 of a global [..][D] matrix into a tile of N rows: columns in
 * blocks of 64, 16-byte chunks swizzled by the row (hy3_wgmma_tile). The other rows become zeros;
 * see hy3_flash_load. */
template <int D, int N>
HY3_DEVICE void hy3_hopper_load(__nv_bfloat16 *tile, const __nv_bfloat16 *from, int64_t stride,
                                int rows)
{
    constexpr int chunks = D / 8;
    HY3_UNROLL
    for (int i = 0; i < N * chunks; i += HY3_HOPPER_THREADS) {
        int at = i + (int)threadIdx.x, row = at / chunks, chunk = at % chunks;
        __nv_bfloat16 *to = tile + (chunk >> 3) * N * 64 + row * 64 + ((chunk ^ row) & 7) * 8;
        if (row < rows)
            hy3_cp_async16(to, from + row * stride + chunk * 8);
        else
            *(uint4 *)to = make_uint4(0, 0, 0, 0);
    }
}

/* What was begun has arrived, for all threads and for the tensor cores; what the last step read is
 * free. */
HY3_DEVICE void hy3_hopper_arrive()
{
    hy3_cp_async_wait<0>();
    hy3_wgmma_publish();
    __syncthreads();
}

/* c [64,N] = the 64 rows from `a` on of a tile of M rows, times the tile b [N,D], transposed */
template <int D, int M, int N>
HY3_DEVICE void hy3_hopper_nt(float (&c)[N / 8][4], const __nv_bfloat16 *a, const __nv_bfloat16 *b)
{
    HY3_UNROLL
    for (int kk = 0; kk < D / 16; kk++)
        hy3_wgmma_ss<N>(c, a + (kk >> 2) * M * 64 + (kk & 3) * 16,
                        b + (kk >> 2) * N * 64 + (kk & 3) * 16, kk > 0);
}

/* c [64,D] += a [64,N] times the tile b [N,D] */
template <int D, int N>
HY3_DEVICE void hy3_hopper_nn(float (&c)[D / 8][4], const uint32_t (&a)[N / 16][4],
                              const __nv_bfloat16 *b)
{
    HY3_UNROLL
    for (int i = 0; i < N / 16; i++)
        hy3_wgmma_rs<D>(c, a[i], b + i * 16 * 64, N * 128);
}

/* First row of this thread's warpgroup, in a form that the compiler knows to be the same for a
 * whole warp. */
HY3_DEVICE int hy3_hopper_group()
{
    return __shfl_sync(0xffffffffu, (int)(threadIdx.x >> 7) * 64, 0);
}

/* Steps of N keys that the 64 rows from row0 on see any of; keys: those the tile sees. */
template <int N>
HY3_DEVICE int hy3_hopper_steps(const struct hy3_query_tile &tile, int row0, int keys)
{
    const int last = tile.seen + row0 + 63;
    return row0 >= tile.rows ? 0 : ((last < keys ? last : keys) + N - 1) / N;
}

/*
 * o and lse as hy3_flash_forward_kernel. Grid (query tiles of 128, Q), the tiles that see most
 * first. Shared memory: q [128][D]; k, v [2][128][D] each.
 */
template <int D>
__global__ void __launch_bounds__(HY3_HOPPER_THREADS, 1)
    hy3_hopper_forward_kernel(__nv_bfloat16 *o, float *lse, const __nv_bfloat16 *q,
                              const __nv_bfloat16 *k, const __nv_bfloat16 *v,
                              const struct hy3_query_tile *tiles, int Q, int K, float scale)
{
#if HY3_HAS_WGMMA
    constexpr int M = HY3_HOPPER_ROWS, N = HY3_HOPPER_KEYS, size = N * D;
    HY3_DYNAMIC_SHARED(raw);
    __nv_bfloat16 *tile_q = hy3_hopper_shared(raw), *tile_k = tile_q + M * D,
                  *tile_v = tile_k + 2 * size;
    const struct hy3_query_tile tile = tiles[gridDim.x - 1 - blockIdx.x];
    const int lane = threadIdx.x & 31, row0 = (int)(threadIdx.x >> 5) * 16;
    const int group0 = hy3_hopper_group();
    const int head = blockIdx.y, kv_head = head / (Q / K);
    const int keys = tile.seen + tile.rows - 1, steps = (keys + N - 1) / N;
    const int own_steps = hy3_hopper_steps<N>(tile, group0, keys);
    const int sees = tile.seen + row0 + (lane >> 2) - (lane & 3) * 2; /* hy3_flash_hide */
    const int64_t stride_q = (int64_t)Q * D, stride_k = (int64_t)K * D;
    const int64_t at_q = tile.q_first * stride_q + head * D;
    const float scale2 = scale * HY3_FLASH_LOG2E;
    k += tile.kv_first * stride_k + kv_head * D;
    v += tile.kv_first * stride_k + kv_head * D;

    hy3_hopper_load<D, M>(tile_q, q + at_q, stride_q, tile.rows);
    hy3_hopper_load<D, N>(tile_k, k, stride_k, keys);
    hy3_cp_async_commit();
    float acc[D / 8][4] = {}, row_max[2] = {-INFINITY, -INFINITY}, row_sum[2] = {}, shrink[2];
    uint32_t p[N / 16][4]; /* of the step before */

    hy3_hopper_arrive();
    if (N < keys)
        hy3_hopper_load<D, N>(tile_k + size, k + N * stride_k, stride_k, keys - N);
    hy3_hopper_load<D, N>(tile_v, v, stride_k, keys);
    hy3_cp_async_commit();
    if (own_steps > 0) {
        float s[N / 8][4];
        hy3_wgmma_begin();
        hy3_hopper_nt<D, M, N>(s, tile_q + group0 * 64, tile_k);
        hy3_wgmma_commit();
        hy3_wgmma_wait<0>(s);
        hy3_flash_hide<N>(s, sees);
        hy3_flash_softmax<N>(s, row_max, row_sum, shrink, scale2);
        hy3_flash_round<N>(p, s);
    }
    for (int step = 1; step <= steps; step++) {
        const int key0 = step * N, next = key0 + N, stage = (step & 1) * size;
        const __nv_bfloat16 *now_k = tile_k + stage, *last_v = tile_v + (size - stage);
        hy3_hopper_arrive();
        if (next < keys)
            hy3_hopper_load<D, N>(tile_k + (size - stage), k + next * stride_k, stride_k,
                                  keys - next);
        if (key0 < keys) /* for the next turn */
            hy3_hopper_load<D, N>(tile_v + stage, v + key0 * stride_k, stride_k, keys - key0);
        hy3_cp_async_commit();
        if (step < own_steps) {
            float s[N / 8][4];
            hy3_wgmma_begin();
            hy3_hopper_nt<D, M, N>(s, tile_q + group0 * 64, now_k);
            hy3_wgmma_commit();
            hy3_hopper_nn<D, N>(acc, p, last_v);
            hy3_wgmma_commit();
            hy3_wgmma_wait<1>(s);
            if (next > tile.seen + group0) /* else all of it is visible to all rows */
                hy3_flash_hide<N>(s, sees - key0);
            hy3_flash_softmax<N>(s, row_max, row_sum, shrink, scale2);
            hy3_wgmma_wait<0>(acc);
            hy3_flash_rescale<D>(acc, shrink);
            hy3_flash_round<N>(p, s);
        } else if (step == own_steps) {
            hy3_wgmma_begin();
            hy3_hopper_nn<D, N>(acc, p, last_v);
            hy3_wgmma_commit();
            hy3_wgmma_wait<0>(acc);
        }
    }
    hy3_flash_end_rows(row_sum, row_max, scale, lse, tile.q_first, tile.rows, Q, head);
    hy3_cp_async_wait<0>();
    __syncthreads(); /* the tiles are free now */
    hy3_flash_store<D>(o + at_q, stride_q, tile.rows, tile_q, acc, 1 / row_sum[0], 1 / row_sum[1]);
#endif
}

/*
 * dq as hy3_flash_dq_kernel. Grid (query tiles of 128, Q), the tiles that see most first.
 * Shared memory: q, dout [128][D] each; k [3][64][D]; v [2][64][D]. The product of a step runs
 * beside the scores of the next.
 */
template <int D>
__global__ void __launch_bounds__(HY3_HOPPER_THREADS, 1)
    hy3_hopper_dq_kernel(__nv_bfloat16 *dq, const __nv_bfloat16 *q, const __nv_bfloat16 *k,
                         const __nv_bfloat16 *v, const __nv_bfloat16 *dout, const float *lse,
                         const float *delta, const struct hy3_query_tile *tiles, int Q, int K,
                         float scale)
{
#if HY3_HAS_WGMMA
    constexpr int M = HY3_HOPPER_ROWS, N = HY3_HOPPER_STEP, size = N * D;
    HY3_DYNAMIC_SHARED(raw);
    __nv_bfloat16 *tile_q = hy3_hopper_shared(raw), *tile_do = tile_q + M * D,
                  *tile_k = tile_do + M * D, *tile_v = tile_k + 3 * size;
    const struct hy3_query_tile tile = tiles[gridDim.x - 1 - blockIdx.x];
    const int lane = threadIdx.x & 31, row0 = (int)(threadIdx.x >> 5) * 16;
    const int group0 = hy3_hopper_group();
    const int head = blockIdx.y, kv_head = head / (Q / K);
    const int keys = tile.seen + tile.rows - 1, steps = (keys + N - 1) / N;
    const int own_steps = hy3_hopper_steps<N>(tile, group0, keys);
    const int64_t stride_q = (int64_t)Q * D, stride_k = (int64_t)K * D;
    const int64_t at_q = tile.q_first * stride_q + head * D;
    const float scale2 = scale * HY3_FLASH_LOG2E;
    k += tile.kv_first * stride_k + kv_head * D;
    v += tile.kv_first * stride_k + kv_head * D;

    hy3_hopper_load<D, M>(tile_q, q + at_q, stride_q, tile.rows);
    hy3_hopper_load<D, M>(tile_do, dout + at_q, stride_q, tile.rows);
    hy3_hopper_load<D, N>(tile_k, k, stride_k, keys);
    hy3_hopper_load<D, N>(tile_v, v, stride_k, keys);
    hy3_cp_async_commit();
    float row_lse[2], row_delta[2], acc[D / 8][4] = {};
    uint32_t a[N / 16][4] = {}; /* dS of the step before; before the first, nothing */
    hy3_flash_row_stats(row_lse, row_delta, lse, delta, tile.q_first, tile.rows, Q, head);
    const __nv_bfloat16 *last_k = tile_k;
    for (int step = 0, place = 0; step < steps; step++) {
        const int key0 = step * N, next = key0 + N, stage = (step & 1) * size;
        const __nv_bfloat16 *now_k = tile_k + place * size;
        place = place == 2 ? 0 : place + 1;
        hy3_hopper_arrive();
        if (next < keys) {
            hy3_hopper_load<D, N>(tile_k + place * size, k + next * stride_k, stride_k,
                                  keys - next);
            hy3_hopper_load<D, N>(tile_v + (size - stage), v + next * stride_k, stride_k,
                                  keys - next);
            hy3_cp_async_commit();
        }
        if (step >= own_steps)
            continue;
        float s[N / 8][4], dp[N / 8][4];
        hy3_wgmma_begin();
        hy3_hopper_nt<D, M, N>(s, tile_q + group0 * 64, now_k);
        hy3_hopper_nt<D, M, N>(dp, tile_do + group0 * 64, tile_v + stage);
        hy3_wgmma_commit();
        hy3_hopper_nn<D, N>(acc, a, last_k);
        hy3_wgmma_commit();
        hy3_wgmma_wait<1>(s);
        hy3_wgmma_wait<1>(dp);
        hy3_flash_p<N>(s, row_lse, scale2, tile.seen + row0 + (lane >> 2) - key0 - (lane & 3) * 2);
        hy3_flash_ds<N>(s, dp, row_delta);
        hy3_wgmma_wait<0>(acc);
        hy3_flash_round<N>(a, s);
        last_k = now_k;
    }
    if (own_steps >
        0) { /* its tile is still there: the other warpgroup does one step more at most */
        hy3_wgmma_begin();
        hy3_hopper_nn<D, N>(acc, a, last_k);
        hy3_wgmma_commit();
        hy3_wgmma_wait<0>(acc);
    }
    hy3_cp_async_wait<0>();
    __syncthreads(); /* the tiles are free now */
    hy3_flash_store<D>(dq + at_q, stride_q, tile.rows, tile_q, acc, scale, scale);
#endif
}

/*
 * dk and dv as hy3_flash_dkdv_kernel. Grid (key tiles of 128, K).
 * Shared memory: k, v [128][D] each; q, dout [2][64][D] each; lse and delta [2][2][64] fp32.
 */
template <int D>
__global__ void __launch_bounds__(HY3_HOPPER_THREADS, 1)
    hy3_hopper_dkdv_kernel(__nv_bfloat16 *dk, __nv_bfloat16 *dv, const __nv_bfloat16 *q,
                           const __nv_bfloat16 *k, const __nv_bfloat16 *v,
                           const __nv_bfloat16 *dout, const float *lse, const float *delta,
                           const struct hy3_key_tile *tiles, int Q, int K, float scale)
{
#if HY3_HAS_WGMMA
    constexpr int M = HY3_HOPPER_ROWS, N = HY3_HOPPER_STEP, size = N * D;
    HY3_DYNAMIC_SHARED(raw);
    __nv_bfloat16 *tile_k = hy3_hopper_shared(raw), *tile_v = tile_k + M * D,
                  *tile_q = tile_v + M * D, *tile_do = tile_q + 2 * size;
    float *stat = (float *)(tile_do + 2 * size);
    const struct hy3_key_tile tile = tiles[blockIdx.x];
    const int lane = threadIdx.x & 31, row0 = (int)(threadIdx.x >> 5) * 16;
    const int group0 = hy3_hopper_group();
    const int kv_head = blockIdx.y, group = Q / K;
    const int64_t stride_q = (int64_t)Q * D, stride_k = (int64_t)K * D;
    const int64_t at_k = tile.kv_first * stride_k + kv_head * D;
    const float scale2 = scale * HY3_FLASH_LOG2E;

    /* drop the queries in front that see no key of the tile; query j then sees i <= before + j */
    const int blind = tile.before < 0 ? -tile.before : 0, before = tile.before + blind;
    const int count = tile.q_count > blind ? tile.q_count - blind : 0;
    const int64_t first = (int64_t)tile.q_first + blind;
    const int steps = (count + N - 1) / N * group;
    const bool keeps_stat = threadIdx.x < 2 * N;

    hy3_hopper_load<D, M>(tile_k, k + at_k, stride_k, tile.rows);
    hy3_hopper_load<D, M>(tile_v, v + at_k, stride_k, tile.rows);
    if (steps > 0) {
        const int64_t at = first * stride_q + kv_head * group * D;
        hy3_hopper_load<D, N>(tile_q, q + at, stride_q, count);
        hy3_hopper_load<D, N>(tile_do, dout + at, stride_q, count);
        if (keeps_stat)
            stat[threadIdx.x] = hy3_flash_stat<N>(lse, delta, first, (int)(threadIdx.x % N), count,
                                                  Q, kv_head * group);
    }
    hy3_cp_async_commit();
    float acc_k[D / 8][4] = {}, acc_v[D / 8][4] = {};
    int query0 = 0, head = kv_head * group; /* of this step */
    for (int step = 0; step < steps; step++) {
        const int stage = step & 1;
        int next_query0 = query0 + N, next_head = head;
        if (next_query0 >= count)
            next_query0 = 0, next_head++;
        hy3_hopper_arrive();
        float next_stat = 0;
        if (step + 1 < steps) {
            const int64_t at = (first + next_query0) * stride_q + next_head * D;
            const int to = (stage ^ 1) * size;
            hy3_hopper_load<D, N>(tile_q + to, q + at, stride_q, count - next_query0);
            hy3_hopper_load<D, N>(tile_do + to, dout + at, stride_q, count - next_query0);
            hy3_cp_async_commit();
            if (keeps_stat) /* stored after the products, which hide the time of the load */
                next_stat = hy3_flash_stat<N>(
                    lse, delta, first, next_query0 + (int)(threadIdx.x % N), count, Q, next_head);
        }
        if (group0 < tile.rows && group0 <= before + query0 + N - 1) { /* else it is not seen */
            const __nv_bfloat16 *now_q = tile_q + stage * size, *now_do = tile_do + stage * size;
            float s[N / 8][4], dp[N / 8][4];
            uint32_t p[N / 16][4], ds[N / 16][4];
            hy3_wgmma_begin();
            hy3_hopper_nt<D, M, N>(s, tile_k + group0 * 64, now_q);
            hy3_wgmma_commit();
            hy3_hopper_nt<D, M, N>(dp, tile_v + group0 * 64, now_do);
            hy3_wgmma_commit();
            hy3_wgmma_wait<1>(s);
            hy3_flash_p_columns<N>(s, stat + stage * 2 * N, scale2,
                                   row0 + (lane >> 2) - before - query0 - (lane & 3) * 2);
            hy3_flash_round<N>(p, s);
            hy3_wgmma_begin();
            hy3_hopper_nn<D, N>(acc_v, p, now_do); /* beside what makes dS */
            hy3_wgmma_commit();
            hy3_wgmma_wait<1>(dp);
            hy3_flash_ds_columns<N>(dp, s, stat + stage * 2 * N + N);
            hy3_flash_round<N>(ds, dp);
            hy3_wgmma_begin();
            hy3_hopper_nn<D, N>(acc_k, ds, now_q);
            hy3_wgmma_commit();
            hy3_wgmma_wait<0>(acc_v);
            hy3_wgmma_wait<0>(acc_k);
        }
        if (step + 1 < steps && keeps_stat)
            stat[(stage ^ 1) * 2 * N + threadIdx.x] = next_stat;
        query0 = next_query0, head = next_head;
    }
    hy3_cp_async_wait<0>();
    __syncthreads(); /* the tiles are free now */
    hy3_flash_store<D>(dk + at_k, stride_k, tile.rows, tile_k, acc_k, scale, scale);
    hy3_flash_store<D>(dv + at_k, stride_k, tile.rows, tile_v, acc_v, 1.0f, 1.0f);
#endif
}

/* ------------------------------------------------------------------ launches */

/* Bytes of shared memory for so many rows of [D] bf16 and fp32 numbers. */
template <int D> static inline int hy3_hopper_bytes(int rows, int floats)
{
    return HY3_HOPPER_ALIGNMENT + rows * D * (int)sizeof(__nv_bfloat16) +
           floats * (int)sizeof(float);
}

static inline cudaError_t hy3_hopper_allow(const void *kernel, int bytes)
{
    return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

template <int D> cudaError_t hy3_hopper_forward(const struct hy3_flash *a, cudaStream_t stream)
{
    const int bytes = hy3_hopper_bytes<D>(HY3_HOPPER_ROWS + 4 * HY3_HOPPER_KEYS, 0);
    cudaError_t error = hy3_hopper_allow((const void *)hy3_hopper_forward_kernel<D>, bytes);
    if (error != cudaSuccess)
        return error;
    HY3_LAUNCH(hy3_hopper_forward_kernel<D>, dim3(a->query_tiles, a->Q), HY3_HOPPER_THREADS, bytes,
               stream, a->o, a->lse, a->q, a->k, a->v, a->query_tile, a->Q, a->K, a->scale);
    return cudaGetLastError();
}

template <int D> cudaError_t hy3_hopper_backward(const struct hy3_flash *a, cudaStream_t stream)
{
    const int rows = 2 * HY3_HOPPER_ROWS + 5 * HY3_HOPPER_STEP; /* of dq; dk and dv need less */
    const int bytes = hy3_hopper_bytes<D>(rows, 4 * HY3_HOPPER_STEP);
    cudaError_t error = hy3_hopper_allow((const void *)hy3_hopper_dq_kernel<D>, bytes);
    if (error == cudaSuccess)
        error = hy3_hopper_allow((const void *)hy3_hopper_dkdv_kernel<D>, bytes);
    if (error != cudaSuccess)
        return error;
    HY3_LAUNCH(hy3_hopper_dq_kernel<D>, dim3(a->query_tiles, a->Q), HY3_HOPPER_THREADS, bytes,
               stream, a->dq, a->q, a->k, a->v, a->dout, a->lse, a->delta, a->query_tile, a->Q,
               a->K, a->scale);
    if ((error = cudaGetLastError()) != cudaSuccess)
        return error;
    HY3_LAUNCH(hy3_hopper_dkdv_kernel<D>, dim3(a->key_tiles, a->K), HY3_HOPPER_THREADS, bytes,
               stream, a->dk, a->dv, a->q, a->k, a->v, a->dout, a->lse, a->delta, a->key_tile, a->Q,
               a->K, a->scale);
    return cudaGetLastError();
}

#endif
