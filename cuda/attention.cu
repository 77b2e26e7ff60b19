/* SPDX-License-Identifier: Apache-2.0 */
/* attention.cu - causal attention of packed samples: by flash_hopper.cuh or flash_ampere.cuh for
 * bf16 and the head sizes of tensor cores; otherwise by plain kernels, one warp per row (fp32 is
 * for tests and comparisons). */
#include "cuda/flash_ampere.cuh"
#include "cuda/flash_hopper.cuh"

enum { WARPS = 4, LANES = 32 }; /* of a block; of a warp */

enum { COLUMNS = 8 }; /* of a lane: plain kernels take D up to COLUMNS * LANES */

template <class T> HY3_DEVICE float dot(int D, const T *a, const T *b)
{
    float sum = 0;

    for (int d = 0; d < D; d++)
        sum += to_float(a[d]) * to_float(b[d]);
    return sum;
}

/* sums[c] += sum over `count`, at most 32, rows of weights[row] * matrix[row][lane + 32 c]. */
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

/* put_row to a row of dk or dv that begins at element `at`. */
template <class T>
HY3_DEVICE void put_key(const struct hy3_attend<T> &a, const float (&sums)[COLUMNS], float factor,
                        T *to, int64_t at)
{
    int lane = threadIdx.x & 31;

    if (!a.accumulate) {
        put_row(sums, factor, a.D, to + at);
        return;
    }
    HY3_UNROLL
    for (int c = 0; c < COLUMNS; c++)
        if (lane + c * LANES < a.D)
            ((float *)to)[at + lane + c * LANES] += sums[c] * factor;
}

/* Lane = key: 32 scores at a time with a running maximum and sum. Grid (query tiles, query
 * heads). */
template <class T> __global__ void plain_forward_kernel(const struct hy3_attend<T> a)
{
    HY3_SHARED(float, shared, [WARPS][LANES]);
    struct hy3_query_tile tile = a.query_tiles[blockIdx.x];
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

/* delta[row] = dot(dout, o), one warp per row [Tq,Q]. */
template <class T> __global__ void plain_delta_kernel(const struct hy3_attend<T> a, int64_t rows)
{
    int64_t row = (int64_t)blockIdx.x * WARPS + (threadIdx.x >> 5);
    float sum = 0;

    if (row >= rows)
        return;
    for (int d = threadIdx.x & 31; d < a.D; d += LANES)
        sum += to_float(a.dout[row * a.D + d]) * to_float(a.o[row * a.D + d]);
    sum = warp_sum(sum);
    if ((threadIdx.x & 31) == 0)
        a.delta[row] = sum;
}

/* Lane = key. Grid (query tiles, query heads). */
template <class T> __global__ void plain_dq_kernel(const struct hy3_attend<T> a)
{
    HY3_SHARED(float, shared, [WARPS][LANES]);
    struct hy3_query_tile tile = a.query_tiles[blockIdx.x];
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
template <class T> __global__ void plain_dkv_kernel(const struct hy3_attend<T> a)
{
    HY3_SHARED(float, shared_p, [WARPS][LANES]);
    HY3_SHARED(float, shared_ds, [WARPS][LANES]);
    struct hy3_key_tile tile = a.key_tiles[blockIdx.x];
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
        put_key(a, dk, a.scale, a.dk, at);
        put_key(a, dv, 1, a.dv, at);
    }
}

/* ---- launches ---- */

template <class T>
static hy3_attend<T> arguments(const struct hy3_attention *a, const struct hy3_tiles *t,
                               float *delta)
{
    return {
        .Q = (int)a->Q,
        .K = (int)a->K,
        .D = (int)a->D,
        .scale = a->scale,
        .query_tiles = t->query,
        .key_tiles = t->key[0],
        .q = (const T *)a->q,
        .k = (const T *)a->k,
        .v = (const T *)a->v,
        .o = (T *)a->o,
        .lse = a->lse,
        .dout = (const T *)a->dout,
        .dq = (T *)a->dq,
        .dk = (T *)a->dk,
        .dv = (T *)a->dv,
        .accumulate = a->accumulate,
        .delta = delta,
    };
}

/* Calls launch(grid) for each of the lists of key tiles, which `f` then has. */
template <class T, class Launch>
static hy3_status for_keys(const struct hy3_tiles *t, struct hy3_attend<T> &f, Launch launch)
{
    for (int list = 0; list < 2; list++) {
        f.key_tiles = t->key[list];
        if (t->keys[list] > 0)
            HY3_TRY(launch(dim3((unsigned)t->keys[list], (unsigned)f.K)));
    }
    return HY3_OK;
}

/* The forward, or the backward if delta, its scratch memory [Tq,Q], is not NULL. */
typedef hy3_status (*attend)(cudaStream_t s, const struct hy3_attention *a,
                             const struct hy3_tiles *t, float *delta);

template <class T>
static hy3_status plain(cudaStream_t s, const struct hy3_attention *a, const struct hy3_tiles *t,
                        float *delta)
{
    struct hy3_attend<T> f = arguments<T>(a, t, delta);
    const dim3 queries((unsigned)t->queries, (unsigned)a->Q);
    int64_t rows = a->q_starts[a->S] * a->Q;

    if (!delta) {
        HY3_CUDA_LAUNCH(plain_forward_kernel<T>, queries, WARPS * LANES, 0, s, f);
        return HY3_OK;
    }
    HY3_CUDA_LAUNCH(plain_delta_kernel<T>, blocks_for(rows, WARPS), WARPS * LANES, 0, s, f, rows);
    HY3_CUDA_LAUNCH(plain_dq_kernel<T>, queries, WARPS * LANES, 0, s, f);
    return for_keys(t, f, [&](dim3 keys) -> hy3_status {
        HY3_CUDA_LAUNCH(plain_dkv_kernel<T>, keys, WARPS * LANES, 0, s, f);
        return HY3_OK;
    });
}

/* Launches a kernel of flash_ampere.cuh or flash_hopper.cuh. */
#define LAUNCH_FLASH(kernel, grid, threads, bytes, s, f)                                          \
    do {                                                                                          \
        HY3_CUDA_TRY(cudaFuncSetAttribute((const void *)kernel,                                   \
                                          cudaFuncAttributeMaxDynamicSharedMemorySize, (bytes))); \
        HY3_CUDA_LAUNCH(kernel, grid, threads, bytes, s, f);                                      \
    } while (0)

template <int D>
static hy3_status flash(cudaStream_t s, const struct hy3_attention *a, const struct hy3_tiles *t,
                        float *delta)
{
    struct hy3_attend<bf16> f = arguments<bf16>(a, t, delta);
    const dim3 queries((unsigned)t->queries, (unsigned)a->Q);
    int64_t rows = a->q_starts[a->S] * a->Q;

    if (delta)
        HY3_CUDA_LAUNCH(hy3_flash_delta_kernel<D>, blocks_for(rows, HY3_AMPERE_THREADS / 32),
                        HY3_AMPERE_THREADS, 0, s, f, rows);
    if constexpr (D >= 64) {
        if (t->rows == HY3_HOPPER_ROWS) {
            constexpr int bytes = hy3_hopper_backward_bytes<D>();

            if (!delta) {
                LAUNCH_FLASH(hy3_hopper_forward_kernel<D>, queries, HY3_HOPPER_THREADS,
                             hy3_hopper_forward_bytes<D>(), s, f);
                return HY3_OK;
            }
            LAUNCH_FLASH(hy3_hopper_dq_kernel<D>, queries, HY3_HOPPER_THREADS, bytes, s, f);
            return for_keys(t, f, [&](dim3 keys) -> hy3_status {
                LAUNCH_FLASH(hy3_hopper_dkdv_kernel<D>, keys, HY3_HOPPER_THREADS,
                             hy3_hopper_backward_bytes<D>(), s, f);
                return HY3_OK;
            });
        }
    }
    if (!delta) {
        LAUNCH_FLASH(hy3_ampere_forward_kernel<D>, queries, HY3_AMPERE_THREADS,
                     hy3_ampere_query_bytes<D>(), s, f);
        return HY3_OK;
    }
    LAUNCH_FLASH(hy3_ampere_dq_kernel<D>, queries, HY3_AMPERE_THREADS, hy3_ampere_query_bytes<D>(),
                 s, f);
    return for_keys(t, f, [&](dim3 keys) -> hy3_status {
        LAUNCH_FLASH(hy3_ampere_dkdv_kernel<D>, keys, HY3_AMPERE_THREADS, hy3_ampere_key_bytes<D>(),
                     s, f);
        return HY3_OK;
    });
}

/* ---- which kernels ---- */

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

static attend choose(const struct hy3_attention *a)
{
    if (a->dtype == HY3_FP32)
        return plain<float>;
    if (!has_flash(a))
        return plain<bf16>;
    return a->D == 16 ? flash<16> : a->D == 32 ? flash<32> : a->D == 64 ? flash<64> : flash<128>;
}

static hy3_status run(struct hy3_stream *stream, const struct hy3_attention *a, bool backward)
{
    struct hy3_stream *s = hy3_cuda_stream(stream);
    const struct hy3_tiles *tiles;
    float *delta = NULL;
    int64_t rows = HY3_AMPERE_ROWS;

    if (a->S == 0 || a->q_starts[a->S] == 0)
        return HY3_OK;
    if (a->D > COLUMNS * LANES)
        return hy3_cuda_host.fail(
            HY3_EUSAGE, __FILE__, __LINE__,
            "head_dim = %lld: attention on the GPU supports at most %d; set device = \"cpu\"",
            (long long)a->D, COLUMNS * LANES);
    if (has_flash(a) && a->D >= 64 && is_hopper())
        rows = HY3_HOPPER_ROWS;
    HY3_TRY(hy3_tiles_find(s, a, rows, &tiles));
    if (backward)
        HY3_TRY(hy3_cuda_scratch(s, HY3_SLOT_DELTA,
                                 (size_t)(a->q_starts[a->S] * a->Q) * sizeof *delta, &delta));
    return choose(a)(s->stream, a, tiles, delta);
}

hy3_status hy3_cuda_attention_forward(struct hy3_stream *stream, const struct hy3_attention *a)
{
    return run(stream, a, false);
}

hy3_status hy3_cuda_attention_backward(struct hy3_stream *stream, const struct hy3_attention *a)
{
    return run(stream, a, true);
}
