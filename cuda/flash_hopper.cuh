/* SPDX-License-Identifier: Apache-2.0 */
/*
 * flash_hopper.cuh - attention with the warpgroup products of compute capability 9.0 (H100, H200):
 * forward, dq, dk and dv.
 *
 * The tensor cores read both operands of the scores, and the second one of every product, from
 * shared memory; only what the softmax computes is in fragments. A warpgroup of 128 threads owns 64
 * rows. Same sums in the same order in every run; no atomics. Source, besides flash.cuh's: Shah et
 * al. 2024 (FlashAttention-3, arXiv 2407.08608), section 3.2: the scores of a step run beside the
 * weighted sum of the step before.
 */
#pragma once

#include "cuda/flash.cuh"

enum {
    HY3_HOPPER_ROWS = 128, /* of a tile in a work list: two warpgroups */
    HY3_HOPPER_KEYS = 128, /* in a step of the forward */
    HY3_HOPPER_STEP = 64,  /* keys or queries in a step of the backward: limited by registers */
    HY3_HOPPER_ALIGNMENT = 1024 /* bytes, of every tile: the swizzle depends on addresses */
};

/* Bytes of shared memory: of the forward; of dq, and more than dk and dv need. */
template <int D> constexpr int hy3_hopper_forward_bytes()
{
    return HY3_HOPPER_ALIGNMENT + hy3_flash_bytes<D>(HY3_HOPPER_ROWS + 4 * HY3_HOPPER_KEYS, 0);
}

template <int D> constexpr int hy3_hopper_backward_bytes()
{
    return HY3_HOPPER_ALIGNMENT +
           hy3_flash_bytes<D>(2 * HY3_HOPPER_ROWS + 5 * HY3_HOPPER_STEP, 4 * HY3_HOPPER_STEP);
}

HY3_DEVICE bf16 *hy3_hopper_shared(unsigned char *raw)
{
    uintptr_t at =
        ((uintptr_t)raw + HY3_HOPPER_ALIGNMENT - 1) & ~(uintptr_t)(HY3_HOPPER_ALIGNMENT - 1);

    return (bf16 *)at;
}

/* hy3_flash_arrive, for the tensor cores, too. */
HY3_DEVICE void hy3_hopper_arrive()
{
    hy3_cp_async_wait<0>();
    hy3_wgmma_publish();
    __syncthreads();
}

/* c [64,N] = the 64 rows from `a` on of a tile of M rows, times the tile b [N,D], transposed. */
template <int D, int M, int N>
HY3_DEVICE void hy3_hopper_nt(float (&c)[N / 8][4], const bf16 *a, const bf16 *b)
{
    HY3_UNROLL
    for (int kk = 0; kk < D / 16; kk++)
        hy3_wgmma_ss<N>(c, a + (kk >> 2) * M * 64 + (kk & 3) * 16,
                        b + (kk >> 2) * N * 64 + (kk & 3) * 16, kk > 0);
}

/* c [64,D] += a [64,N] times the tile b [N,D]. */
template <int D, int N>
HY3_DEVICE void hy3_hopper_nn(float (&c)[D / 8][4], const uint32_t (&a)[N / 16][4], const bf16 *b)
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

/* Work of a block: tiles that see most come first. */
template <int D>
HY3_DEVICE struct hy3_flash_queries hy3_hopper_find_queries(const struct hy3_attend<bf16> &a)
{
    return hy3_flash_find_queries<D>(a, gridDim.x - 1 - blockIdx.x);
}

/* Steps of N keys of which the 64 rows from row0 on see any. */
template <int N> HY3_DEVICE int hy3_hopper_steps(const struct hy3_flash_queries &b, int row0)
{
    const int last = b.tile.seen + row0 + 63;
    return row0 >= b.tile.rows ? 0 : ((last < b.keys ? last : b.keys) + N - 1) / N;
}

/*
 * o and lse as hy3_ampere_forward_kernel. Grid (query tiles of 128, Q).
 * Shared memory: q [128][D]; k, v [2][128][D] each.
 */
template <int D>
__global__ void __launch_bounds__(HY3_HOPPER_THREADS, 1)
    hy3_hopper_forward_kernel(const struct hy3_attend<bf16> a)
{
#if HY3_HAS_WGMMA
    constexpr int M = HY3_HOPPER_ROWS, N = HY3_HOPPER_KEYS, size = N * D;
    HY3_DYNAMIC_SHARED(raw);
    bf16 *tile_q = hy3_hopper_shared(raw), *tile_k = tile_q + M * D, *tile_v = tile_k + 2 * size;
    const struct hy3_flash_queries b = hy3_hopper_find_queries<D>(a);
    const int group0 = hy3_hopper_group(), own_steps = hy3_hopper_steps<N>(b, group0);
    const int steps = (b.keys + N - 1) / N;

    hy3_flash_load<D, M, true>(tile_q, a.q + b.at_q, b.stride_q, b.tile.rows);
    hy3_flash_load_keys<D, N, true>(tile_k, b.k, b, 0);
    hy3_cp_async_commit();
    float acc[D / 8][4] = {}, row_max[2] = {-INFINITY, -INFINITY}, row_sum[2] = {}, shrink[2];
    uint32_t p[N / 16][4]; /* of the step before */

    hy3_hopper_arrive();
    if (N < b.keys)
        hy3_flash_load_keys<D, N, true>(tile_k + size, b.k, b, N);
    hy3_flash_load_keys<D, N, true>(tile_v, b.v, b, 0);
    hy3_cp_async_commit();
    if (own_steps > 0) {
        float s[N / 8][4];
        hy3_wgmma_begin();
        hy3_hopper_nt<D, M, N>(s, tile_q + group0 * 64, tile_k);
        hy3_wgmma_commit();
        hy3_wgmma_wait<0>(s);
        hy3_flash_hide<N>(s, b.sees);
        hy3_flash_softmax<N>(s, row_max, row_sum, shrink, b.scale2);
        hy3_flash_round<N>(p, s);
    }
    for (int step = 1; step <= steps; step++) {
        const int key0 = step * N, next = key0 + N, stage = (step & 1) * size;
        const bf16 *now_k = tile_k + stage, *last_v = tile_v + (size - stage);
        hy3_hopper_arrive();
        if (next < b.keys)
            hy3_flash_load_keys<D, N, true>(tile_k + (size - stage), b.k, b, next);
        if (key0 < b.keys) /* for the next turn */
            hy3_flash_load_keys<D, N, true>(tile_v + stage, b.v, b, key0);
        hy3_cp_async_commit();
        if (step < own_steps) {
            float s[N / 8][4];
            hy3_wgmma_begin();
            hy3_hopper_nt<D, M, N>(s, tile_q + group0 * 64, now_k);
            hy3_wgmma_commit();
            hy3_hopper_nn<D, N>(acc, p, last_v);
            hy3_wgmma_commit();
            hy3_wgmma_wait<1>(s);
            if (next > b.tile.seen + group0) /* else all of it is visible to all rows */
                hy3_flash_hide<N>(s, b.sees - key0);
            hy3_flash_softmax<N>(s, row_max, row_sum, shrink, b.scale2);
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
    hy3_flash_end_forward<D>(a, b, tile_q, acc, row_max, row_sum);
#endif
}

/*
 * dq as hy3_ampere_dq_kernel. Grid (query tiles of 128, Q).
 * Shared memory: q, dout [128][D] each; k [3][64][D]; v [2][64][D]. The product of a step runs
 * beside the scores of the next.
 */
template <int D>
__global__ void __launch_bounds__(HY3_HOPPER_THREADS, 1)
    hy3_hopper_dq_kernel(const struct hy3_attend<bf16> a)
{
#if HY3_HAS_WGMMA
    constexpr int M = HY3_HOPPER_ROWS, N = HY3_HOPPER_STEP, size = N * D;
    HY3_DYNAMIC_SHARED(raw);
    bf16 *tile_q = hy3_hopper_shared(raw), *tile_do = tile_q + M * D;
    bf16 *tile_k = tile_do + M * D, *tile_v = tile_k + 3 * size;
    const struct hy3_flash_queries b = hy3_hopper_find_queries<D>(a);
    const int group0 = hy3_hopper_group(), own_steps = hy3_hopper_steps<N>(b, group0);
    const int steps = (b.keys + N - 1) / N;

    hy3_flash_load<D, M, true>(tile_q, a.q + b.at_q, b.stride_q, b.tile.rows);
    hy3_flash_load<D, M, true>(tile_do, a.dout + b.at_q, b.stride_q, b.tile.rows);
    hy3_flash_load_keys<D, N, true>(tile_k, b.k, b, 0);
    hy3_flash_load_keys<D, N, true>(tile_v, b.v, b, 0);
    hy3_cp_async_commit();
    float row_lse[2], row_delta[2], acc[D / 8][4] = {};
    uint32_t ds[N / 16][4] = {}; /* of the step before; before the first, zeros */
    hy3_flash_row_stats(row_lse, row_delta, a, b);
    const bf16 *last_k = tile_k;
    for (int step = 0, place = 0; step < steps; step++) {
        const int key0 = step * N, next = key0 + N, stage = (step & 1) * size;
        const bf16 *now_k = tile_k + place * size;
        place = place == 2 ? 0 : place + 1;
        hy3_hopper_arrive();
        if (next < b.keys) {
            hy3_flash_load_keys<D, N, true>(tile_k + place * size, b.k, b, next);
            hy3_flash_load_keys<D, N, true>(tile_v + (size - stage), b.v, b, next);
            hy3_cp_async_commit();
        }
        if (step >= own_steps)
            continue;
        float s[N / 8][4], dp[N / 8][4];
        hy3_wgmma_begin();
        hy3_hopper_nt<D, M, N>(s, tile_q + group0 * 64, now_k);
        hy3_hopper_nt<D, M, N>(dp, tile_do + group0 * 64, tile_v + stage);
        hy3_wgmma_commit();
        hy3_hopper_nn<D, N>(acc, ds, last_k);
        hy3_wgmma_commit();
        hy3_wgmma_wait<1>(s);
        hy3_wgmma_wait<1>(dp);
        hy3_flash_p<N>(s, row_lse, b.scale2, b.sees - key0);
        hy3_flash_ds<N>(s, dp, row_delta);
        hy3_wgmma_wait<0>(acc);
        hy3_flash_round<N>(ds, s);
        last_k = now_k;
    }
    if (own_steps > 0) { /* last_k is still there: the other warpgroup is at most a step ahead */
        hy3_wgmma_begin();
        hy3_hopper_nn<D, N>(acc, ds, last_k);
        hy3_wgmma_commit();
        hy3_wgmma_wait<0>(acc);
    }
    hy3_flash_arrive();
    hy3_flash_store<D>(a.dq + b.at_q, b.stride_q, b.tile.rows, tile_q, acc, a.scale, a.scale);
#endif
}

/*
 * dk and dv as hy3_ampere_dkdv_kernel. Grid (key tiles of 128, K).
 * Shared memory: k, v [128][D] each; q, dout [2][64][D] each; lse and delta [2][2][64] fp32.
 */
template <int D>
__global__ void __launch_bounds__(HY3_HOPPER_THREADS, 1)
    hy3_hopper_dkdv_kernel(const struct hy3_attend<bf16> a)
{
#if HY3_HAS_WGMMA
    constexpr int M = HY3_HOPPER_ROWS, N = HY3_HOPPER_STEP, size = N * D;
    HY3_DYNAMIC_SHARED(raw);
    bf16 *tile_k = hy3_hopper_shared(raw), *tile_v = tile_k + M * D;
    bf16 *tile_q = tile_v + M * D, *tile_do = tile_q + 2 * size;
    float *stat = (float *)(tile_do + 2 * size);
    const struct hy3_flash_keys b = hy3_flash_find_keys<D>(a);
    const int group0 = hy3_hopper_group(), steps = (b.count + N - 1) / N * b.group;
    const bool keeps_stat = threadIdx.x < 2 * N;
    struct hy3_flash_step now = {0, b.kv_head * b.group};

    hy3_flash_load<D, M, true>(tile_k, a.k + b.at_k, b.stride_k, b.tile.rows);
    hy3_flash_load<D, M, true>(tile_v, a.v + b.at_k, b.stride_k, b.tile.rows);
    if (steps > 0) {
        hy3_flash_load_queries<D, N, true>(tile_q, tile_do, a, b, now);
        if (keeps_stat)
            stat[threadIdx.x] = hy3_flash_stat<N>(a, b, now);
    }
    hy3_cp_async_commit();
    float acc_k[D / 8][4] = {}, acc_v[D / 8][4] = {};
    for (int step = 0; step < steps; step++) {
        const int stage = step & 1, to = (stage ^ 1) * size;
        const struct hy3_flash_step next = hy3_flash_next<N>(b, now);
        hy3_hopper_arrive();
        float next_stat = 0;
        if (step + 1 < steps) {
            hy3_flash_load_queries<D, N, true>(tile_q + to, tile_do + to, a, b, next);
            hy3_cp_async_commit();
            if (keeps_stat) /* stored after the products, which hide the latency of the load */
                next_stat = hy3_flash_stat<N>(a, b, next);
        }
        if (group0 < b.tile.rows && group0 <= b.before + now.query0 + N - 1) { /* else not seen */
            const bf16 *now_q = tile_q + stage * size, *now_do = tile_do + stage * size;
            float s[N / 8][4], dp[N / 8][4];
            uint32_t p[N / 16][4], ds[N / 16][4];
            hy3_wgmma_begin();
            hy3_hopper_nt<D, M, N>(s, tile_k + group0 * 64, now_q);
            hy3_wgmma_commit();
            hy3_hopper_nt<D, M, N>(dp, tile_v + group0 * 64, now_do);
            hy3_wgmma_commit();
            hy3_wgmma_wait<1>(s);
            hy3_flash_p_columns<N>(s, stat + stage * 2 * N, b.scale2, b.hides - now.query0);
            hy3_flash_round<N>(p, s);
            hy3_wgmma_begin();
            hy3_hopper_nn<D, N>(acc_v, p, now_do); /* runs beside the computation of dS */
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
        now = next;
    }
    hy3_flash_end_keys<D>(a, b, tile_k, tile_v, acc_k, acc_v);
#endif
}
