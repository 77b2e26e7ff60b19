/* SPDX-License-Identifier: Apache-2.0 */
/* flash_ampere.cuh - attention with mma.sync m16n8k16, which every GPU from compute capability 8.0
 * on has: forward, dq, dk and dv. */
#pragma once

#include "cuda/flash.cuh"

enum {
    HY3_AMPERE_ROWS = 64, /* of a tile in a work list, and keys in a step */
    HY3_AMPERE_STEP = 32  /* queries in a step of dkdv: 64 would not fit the registers */
};

/* Bytes of shared memory: of the forward and of dq; of dk and dv. */
template <int D> constexpr int hy3_ampere_query_bytes()
{
    return hy3_flash_bytes<D>(4 * HY3_AMPERE_ROWS, 0);
}

template <int D> constexpr int hy3_ampere_key_bytes()
{
    return hy3_flash_bytes<D>(2 * HY3_AMPERE_ROWS + 4 * HY3_AMPERE_STEP, 4 * HY3_AMPERE_STEP);
}

/* ---- fragments ---- */

/* A fragment (16 x 16): rows row0 .. row0+15, columns 16 kk .. of a tile. */
template <int D> HY3_DEVICE void hy3_ampere_a(uint32_t (&a)[4], const bf16 *tile, int row0, int kk)
{
    int lane = threadIdx.x & 31;
    hy3_ldmatrix_x4(a, tile + hy3_ampere_at<D>(row0 + (lane & 15), kk * 2 + (lane >> 4)));
}

/* Two 16 x 8 accumulators += a times two adjacent B fragments. */
HY3_DEVICE void hy3_ampere_mma2(float (&c0)[4], float (&c1)[4], const uint32_t (&a)[4],
                                const uint32_t (&b)[4])
{
    const uint32_t b0[2] = {b[0], b[1]}, b1[2] = {b[2], b[3]};
    hy3_mma_m16n8k16_bf16(c0, a, b0);
    hy3_mma_m16n8k16_bf16(c1, a, b1);
}

/* c[16][N] += a[16][16] times columns 16 kk .. of the tile b[N][D], transposed. */
template <int D, int N>
HY3_DEVICE void hy3_ampere_nt(float (&c)[N / 8][4], const uint32_t (&a)[4], const bf16 *tile,
                              int kk)
{
    int lane = threadIdx.x & 31, row = (lane & 7) + (lane >> 4) * 8, half = lane >> 3 & 1;
    HY3_UNROLL
    for (int n = 0; n < N / 16; n++) {
        uint32_t b[4];
        hy3_ldmatrix_x4(b, tile + hy3_ampere_at<D>(n * 16 + row, kk * 2 + half));
        hy3_ampere_mma2(c[2 * n], c[2 * n + 1], a, b);
    }
}

/* c[16][D] += a[16][N] times the tile b[N][D]. */
template <int D, int N>
HY3_DEVICE void hy3_ampere_nn(float (&c)[D / 8][4], const uint32_t (&a)[N / 16][4],
                              const bf16 *tile)
{
    int lane = threadIdx.x & 31, row = lane & 15, half = lane >> 4;
    HY3_UNROLL
    for (int i = 0; i < N / 16; i++) {
        HY3_UNROLL
        for (int n = 0; n < D / 16; n++) {
            uint32_t b[4];
            hy3_ldmatrix_x4_trans(b, tile + hy3_ampere_at<D>(i * 16 + row, n * 2 + half));
            hy3_ampere_mma2(c[2 * n], c[2 * n + 1], a[i], b);
        }
    }
}

/* ---- kernels ---- */

/*
 * o = softmax(scale q k^T) v and lse. Grid (query tiles, Q), 128 threads.
 * A block: q [64, D] against all its keys in steps of 64 (FlashAttention-2, algorithm 1).
 * Shared memory: k and v, [2][64][D] each; q passes through the second stage of k.
 */
template <int D>
__global__ void __launch_bounds__(HY3_AMPERE_THREADS)
    hy3_ampere_forward_kernel(const struct hy3_attend<bf16> a)
{
    constexpr int N = HY3_AMPERE_ROWS, size = N * D;
    HY3_DYNAMIC_SHARED(raw);
    bf16 *tile_k = (bf16 *)raw, *tile_v = tile_k + 2 * size;
    const struct hy3_flash_queries b = hy3_flash_find_queries<D>(a, blockIdx.x);

    hy3_flash_load<D, N, false>(tile_k + size, a.q + b.at_q, b.stride_q, b.tile.rows);
    hy3_cp_async_commit();
    hy3_flash_load_keys<D, N, false>(tile_k, b.k, b, 0);
    hy3_flash_load_keys<D, N, false>(tile_v, b.v, b, 0);
    hy3_cp_async_commit();
    hy3_cp_async_wait<1>();
    __syncthreads();
    uint32_t a_q[D / 16][4];
    HY3_UNROLL
    for (int kk = 0; kk < D / 16; kk++)
        hy3_ampere_a<D>(a_q[kk], tile_k + size, b.row0, kk);

    /* a thread holds rows row0 + lane/4 (index 0) and 8 below (1) */
    float acc[D / 8][4] = {}, row_max[2] = {-INFINITY, -INFINITY}, row_sum[2] = {};
    for (int key0 = 0, stage = 0; key0 < b.keys; key0 += N, stage = size - stage) {
        const int next = key0 + N;
        hy3_flash_arrive();
        if (next < b.keys) {
            hy3_flash_load_keys<D, N, false>(tile_k + (size - stage), b.k, b, next);
            hy3_flash_load_keys<D, N, false>(tile_v + (size - stage), b.v, b, next);
            hy3_cp_async_commit();
        }
        if (b.row0 >= b.tile.rows || key0 >= b.tile.seen + b.row0 + 15)
            continue; /* the whole warp sees nothing here; never so in step 0 for a used row */

        float s[N / 8][4] = {};
        HY3_UNROLL
        for (int kk = 0; kk < D / 16; kk++)
            hy3_ampere_nt<D, N>(s, a_q[kk], tile_k + stage, kk);
        if (next > b.tile.seen + b.row0) /* else all of it is visible to all rows */
            hy3_flash_hide<N>(s, b.sees - key0);
        float shrink[2];
        hy3_flash_softmax<N>(s, row_max, row_sum, shrink, b.scale2);
        hy3_flash_rescale<D>(acc, shrink);
        uint32_t p[N / 16][4];
        hy3_flash_round<N>(p, s);
        hy3_ampere_nn<D, N>(acc, p, tile_v + stage);
    }
    hy3_flash_end_forward<D>(a, b, tile_k, acc, row_max, row_sum);
}

/*
 * dq = scale dS k with P = exp(scale q k^T - lse), dS = P (dout v^T - delta).
 * Grid (query tiles, Q), 128 threads; the loops of the forward (FlashAttention-2, algorithm 2,
 * with the query tile outside, so that dq needs no atomics).
 * A step covers 64 keys in halves of 32, so that both score tiles fit the registers beside the
 * fragments of q and dout.
 * Shared memory: k and v, [2][64][D] each; q and dout pass through the second stage.
 */
template <int D>
__global__ void __launch_bounds__(HY3_AMPERE_THREADS)
    hy3_ampere_dq_kernel(const struct hy3_attend<bf16> a)
{
    constexpr int N = HY3_AMPERE_ROWS, H = N / 2, size = N * D;
    HY3_DYNAMIC_SHARED(raw);
    bf16 *tile_k = (bf16 *)raw, *tile_v = tile_k + 2 * size;
    const struct hy3_flash_queries b = hy3_flash_find_queries<D>(a, blockIdx.x);

    hy3_flash_load<D, N, false>(tile_k + size, a.q + b.at_q, b.stride_q, b.tile.rows);
    hy3_flash_load<D, N, false>(tile_v + size, a.dout + b.at_q, b.stride_q, b.tile.rows);
    hy3_cp_async_commit();
    hy3_flash_load_keys<D, N, false>(tile_k, b.k, b, 0);
    hy3_flash_load_keys<D, N, false>(tile_v, b.v, b, 0);
    hy3_cp_async_commit();

    float row_lse[2], row_delta[2];
    hy3_flash_row_stats(row_lse, row_delta, a, b);
    hy3_cp_async_wait<1>();
    __syncthreads();
    uint32_t a_q[D / 16][4], a_do[D / 16][4];
    HY3_UNROLL
    for (int kk = 0; kk < D / 16; kk++) {
        hy3_ampere_a<D>(a_q[kk], tile_k + size, b.row0, kk);
        hy3_ampere_a<D>(a_do[kk], tile_v + size, b.row0, kk);
    }

    float acc[D / 8][4] = {};
    for (int key0 = 0, stage = 0; key0 < b.keys; key0 += N, stage = size - stage) {
        const int next = key0 + N;
        hy3_flash_arrive();
        if (next < b.keys) {
            hy3_flash_load_keys<D, N, false>(tile_k + (size - stage), b.k, b, next);
            hy3_flash_load_keys<D, N, false>(tile_v + (size - stage), b.v, b, next);
            hy3_cp_async_commit();
        }
        if (b.row0 >= b.tile.rows)
            continue;
#ifdef __CUDACC__
#    pragma unroll 1 /* unrolled, it would spill */
#endif
        for (int half = 0; half < N; half += H) {
            if (key0 + half >= b.tile.seen + b.row0 + 15)
                break; /* the whole warp sees nothing here */
            const bf16 *now_k = tile_k + stage + half * D, *now_v = tile_v + stage + half * D;
            float s[H / 8][4] = {}, dp[H / 8][4] = {};
            HY3_UNROLL
            for (int kk = 0; kk < D / 16; kk++) {
                hy3_ampere_nt<D, H>(s, a_q[kk], now_k, kk);
                hy3_ampere_nt<D, H>(dp, a_do[kk], now_v, kk);
            }
            hy3_flash_p<H>(s, row_lse, b.scale2, b.sees - key0 - half);
            hy3_flash_ds<H>(s, dp, row_delta);
            uint32_t ds[H / 16][4];
            hy3_flash_round<H>(ds, s);
            hy3_ampere_nn<D, H>(acc, ds, now_k);
        }
    }
    hy3_flash_arrive();
    hy3_flash_store<D>(a.dq + b.at_q, b.stride_q, b.tile.rows, tile_k, acc, a.scale, a.scale);
}

/*
 * dv = P^T dout and dk = scale dS^T q, P and dS as above, summed over the group's query heads.
 * Grid (key tiles, K), 128 threads. A block: 64 keys against their queries in steps of 32, head
 * after head (FlashAttention-2, algorithm 2). Scores are computed transposed, k q^T and v dout^T,
 * so that P^T and dS^T are A operands as they lie in the accumulators.
 * Shared memory: k, v: [64][D]; q, dout: [2][32][D]; lse and delta: [2][2][32] fp32.
 */
template <int D>
__global__ void __launch_bounds__(HY3_AMPERE_THREADS)
    hy3_ampere_dkdv_kernel(const struct hy3_attend<bf16> a)
{
    constexpr int M = HY3_AMPERE_ROWS, N = HY3_AMPERE_STEP, size = N * D;
    HY3_DYNAMIC_SHARED(raw);
    bf16 *tile_k = (bf16 *)raw, *tile_v = tile_k + M * D;
    bf16 *tile_q = tile_v + M * D, *tile_do = tile_q + 2 * size;
    float *stat = (float *)(tile_do + 2 * size);
    const struct hy3_flash_keys b = hy3_flash_find_keys<D>(a);
    const int steps = (b.count + N - 1) / N * b.group;
    const bool keeps_stat = threadIdx.x < 2 * N;
    struct hy3_flash_step now = {0, b.kv_head * b.group};

    hy3_flash_load<D, M, false>(tile_k, a.k + b.at_k, b.stride_k, b.tile.rows);
    hy3_flash_load<D, M, false>(tile_v, a.v + b.at_k, b.stride_k, b.tile.rows);
    if (steps > 0) {
        hy3_flash_load_queries<D, N, false>(tile_q, tile_do, a, b, now);
        if (keeps_stat)
            stat[threadIdx.x] = hy3_flash_stat<N>(a, b, now);
    }
    hy3_cp_async_commit();

    float acc_k[D / 8][4] = {}, acc_v[D / 8][4] = {};
    for (int step = 0; step < steps; step++) {
        const int stage = step & 1, to = (stage ^ 1) * size;
        const struct hy3_flash_step next = hy3_flash_next<N>(b, now);
        hy3_flash_arrive();
        float next_stat = 0;
        if (step + 1 < steps) {
            hy3_flash_load_queries<D, N, false>(tile_q + to, tile_do + to, a, b, next);
            hy3_cp_async_commit();
            if (keeps_stat) /* stored after the products, which hide the latency of the load */
                next_stat = hy3_flash_stat<N>(a, b, next);
        }
        if (b.row0 < b.tile.rows && b.row0 <= b.before + now.query0 + N - 1) { /* else not seen */
            const bf16 *now_q = tile_q + stage * size, *now_do = tile_do + stage * size;
            const float *now_stat = stat + stage * 2 * N;
            float s[N / 8][4] = {}, dp[N / 8][4] = {};
            HY3_UNROLL
            for (int kk = 0; kk < D / 16; kk++) {
                uint32_t rows[4];
                hy3_ampere_a<D>(rows, tile_k, b.row0, kk);
                hy3_ampere_nt<D, N>(s, rows, now_q, kk);
            }
            HY3_UNROLL
            for (int kk = 0; kk < D / 16; kk++) {
                uint32_t rows[4];
                hy3_ampere_a<D>(rows, tile_v, b.row0, kk);
                hy3_ampere_nt<D, N>(dp, rows, now_do, kk);
            }
            /* element (key, query): seen iff row0 + lane/4 + 8r <= before + query0 + column */
            hy3_flash_p_columns<N>(s, now_stat, b.scale2, b.hides - now.query0);
            hy3_flash_ds_columns<N>(dp, s, now_stat + N);
            uint32_t rounded[N / 16][4];
            hy3_flash_round<N>(rounded, s);
            hy3_ampere_nn<D, N>(acc_v, rounded, now_do);
            hy3_flash_round<N>(rounded, dp);
            hy3_ampere_nn<D, N>(acc_k, rounded, now_q);
        }
        if (step + 1 < steps && keeps_stat)
            stat[(stage ^ 1) * 2 * N + threadIdx.x] = next_stat;
        now = next;
    }
    hy3_flash_end_keys<D>(a, b, tile_k, tile_v, acc_k, acc_v);
}
