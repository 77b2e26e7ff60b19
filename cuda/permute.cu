/* SPDX-License-Identifier: Apache-2.0 */
/* permute.cu - tokens to the rows of their experts and back: a block a token, or a few rows. Bound
 * by memory. */
#include "cuda/cuda.h"

/* Rows that a block of permute_forward moves together; experts' rows that unpermute_backward takes
 * together. */
enum { ROWS = 4, TOGETHER = 8 };

/* sums[j][32] = sum over the block of x[j], for the threads below TOGETHER; one barrier for all of
 * them. */
HY3_DEVICE void block_sums(const float (&x)[TOGETHER], float (&sums)[TOGETHER][33])
{
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;

    __syncthreads(); /* sums may still be read */
    HY3_UNROLL
    for (int j = 0; j < TOGETHER; j++) {
        float sum = warp_sum(x[j]);

        if (lane == 0)
            sums[j][warp] = sum;
    }
    __syncthreads();
    if (threadIdx.x < TOGETHER) {
        float sum = 0;

        for (int i = 0; i < warps; i++)
            sum += sums[threadIdx.x][i];
        sums[threadIdx.x][32] = sum;
    }
}

/* y is larger than the caches, and must not drive the rows of x out of them: each is read k
 * times. */
template <class T, int N>
__global__ void permute_forward_kernel(int64_t R, int64_t H, const int32_t *token, const T *x, T *y)
{
    int64_t first = (int64_t)blockIdx.x * ROWS;
    const T *from[ROWS];
    pack<T, N> value[ROWS];

    HY3_UNROLL
    for (int j = 0; j < ROWS;
         j++) /* beyond the last row, that again, so that reading needs no condition */
        from[j] = x + (int64_t)token[first + j < R ? first + j : R - 1] * H;
    for (int64_t i = threadIdx.x * N; i < H; i += blockDim.x * N) {
        HY3_UNROLL
        for (int j = 0; j < ROWS; j++)
            value[j] = load_pack<N>(from[j] + i);
        HY3_UNROLL
        for (int j = 0; j < ROWS; j++) {
            if (first + j < R)
                store_pack_once(y + (first + j) * H + i, value[j]);
        }
    }
}

template <class T, int N>
__global__ void permute_backward_kernel(int64_t H, int k, const int32_t *position, const T *dy,
                                        T *dx, int accumulate)
{
    const int32_t *rows = position + (int64_t)blockIdx.x * k;
    float sum[N], value[N];

    for (int64_t i = threadIdx.x * N; i < H; i += blockDim.x * N) {
        HY3_UNROLL
        for (int n = 0; n < N; n++)
            sum[n] = 0;
        if (accumulate)
            load(sum, dx + (int64_t)blockIdx.x * H + i);
        for (int j = 0; j < k; j++) {
            if (rows[j] < 0)
                continue;
            load(value, dy + (int64_t)rows[j] * H + i);
            HY3_UNROLL
            for (int n = 0; n < N; n++)
                sum[n] += value[n];
        }
        store(dx + (int64_t)blockIdx.x * H + i, sum);
    }
}

template <class T, int N>
__global__ void unpermute_forward_kernel(int64_t H, int k, const int32_t *position,
                                         const float *weights, const T *y, const T *shared, T *out)
{
    const int32_t *rows = position + (int64_t)blockIdx.x * k;
    const float *weight = weights + (int64_t)blockIdx.x * k;
    float sum[N], value[N];

    for (int64_t i = threadIdx.x * N; i < H; i += blockDim.x * N) {
        HY3_UNROLL
        for (int n = 0; n < N; n++)
            sum[n] = 0;
        for (int j = 0; j < k; j++) {
            load(value, y + (int64_t)rows[j] * H + i);
            HY3_UNROLL
            for (int n = 0; n < N; n++)
                sum[n] += weight[j] * value[n];
        }
        if (shared) {
            load(value, shared + (int64_t)blockIdx.x * H + i);
            HY3_UNROLL
            for (int n = 0; n < N; n++)
                sum[n] += value[n];
        }
        load(value, out + (int64_t)blockIdx.x * H + i);
        HY3_UNROLL
        for (int n = 0; n < N; n++)
            sum[n] += value[n];
        store(out + (int64_t)blockIdx.x * H + i, sum);
    }
}

/* dy may be y: a thread reads its elements before it writes them. */
template <class T, int N>
__global__ void unpermute_backward_kernel(int64_t H, int k, const int32_t *position,
                                          const float *weights, const T *y, const T *dout, T *dy,
                                          float *dweights)
{
    HY3_SHARED(float, sums, [TOGETHER][33]);
    int64_t token = blockIdx.x;

    for (int first = 0; first < k; first += TOGETHER) {
        int own = k - first < TOGETHER ? k - first : (int)TOGETHER, row[TOGETHER];
        float weight[TOGETHER], sum[TOGETHER], d[N];
        pack<T, N> value[TOGETHER];

        HY3_UNROLL
        for (int j = 0; j < TOGETHER; j++) { /* beyond the last row, that again */
            row[j] = position[token * k + first + (j < own ? j : own - 1)];
            weight[j] = weights[token * k + first + (j < own ? j : own - 1)];
            sum[j] = 0;
        }
        for (int64_t i = threadIdx.x * N; i < H; i += blockDim.x * N) {
            load(d, dout + token * H + i);
            HY3_UNROLL
            for (int j = 0; j < TOGETHER; j++)
                value[j] = load_pack<N>(y + row[j] * H + i);
            HY3_UNROLL
            for (int j = 0; j < TOGETHER; j++) {
                HY3_UNROLL
                for (int n = 0; n < N; n++) {
                    sum[j] += d[n] * to_float(value[j].value[n]);
                    from_float(d[n] * weight[j], &value[j].value[n]);
                }
                if (j < own)
                    store_pack(dy + row[j] * H + i, value[j]);
            }
        }
        block_sums(sum, sums);
        if ((int)threadIdx.x < own)
            dweights[token * k + first + threadIdx.x] = sums[threadIdx.x][32];
    }
}

template <class T, int N>
static hy3_status permute(struct hy3_stream *stream, const struct hy3_permute *a, bool backward)
{
    cudaStream_t s = hy3_cuda_stream(stream)->stream;
    unsigned threads = threads_for(a->H / N);

    if (backward && a->T > 0)
        HY3_CUDA_LAUNCH((permute_backward_kernel<T, N>), (unsigned)a->T, threads, 0, s, a->H,
                        (int)a->k, a->position, (const T *)a->dy, (T *)a->dx, (int)a->accumulate);
    if (!backward && a->R > 0)
        HY3_CUDA_LAUNCH((permute_forward_kernel<T, N>), blocks_for(a->R, ROWS), threads, 0, s, a->R,
                        a->H, a->token, (const T *)a->x, (T *)a->y);
    return HY3_OK;
}

template <class T>
static hy3_status permute_by_width(struct hy3_stream *stream, const struct hy3_permute *a,
                                   bool backward)
{
    if (is_wide<T>(a->H, backward ? a->dy : a->x, backward ? a->dx : a->y))
        return permute<T, 16 / (int)sizeof(T)>(stream, a, backward);
    return permute<T, 1>(stream, a, backward);
}

hy3_status hy3_cuda_permute_forward(struct hy3_stream *stream, const struct hy3_permute *a)
{
    return a->dtype == HY3_FP32 ? permute_by_width<float>(stream, a, false)
                                : permute_by_width<bf16>(stream, a, false);
}

hy3_status hy3_cuda_permute_backward(struct hy3_stream *stream, const struct hy3_permute *a)
{
    return a->dtype == HY3_FP32 ? permute_by_width<float>(stream, a, true)
                                : permute_by_width<bf16>(stream, a, true);
}

template <class T, int N>
static hy3_status unpermute(struct hy3_stream *stream, const struct hy3_unpermute *a, bool backward)
{
    cudaStream_t s = hy3_cuda_stream(stream)->stream;
    unsigned threads =
        threads_for(a->H / N, backward ? 128 : 256); /* registers: more blocks of fewer */

    if (a->T == 0)
        return HY3_OK;
    if (backward)
        HY3_CUDA_LAUNCH((unpermute_backward_kernel<T, N>), (unsigned)a->T, threads, 0, s, a->H,
                        (int)a->k, a->position, a->weights, (const T *)a->y, (const T *)a->dout,
                        (T *)a->dy, a->dweights);
    else
        HY3_CUDA_LAUNCH((unpermute_forward_kernel<T, N>), (unsigned)a->T, threads, 0, s, a->H,
                        (int)a->k, a->position, a->weights, (const T *)a->y, (const T *)a->shared,
                        (T *)a->out);
    return HY3_OK;
}

template <class T>
static hy3_status unpermute_by_width(struct hy3_stream *stream, const struct hy3_unpermute *a,
                                     bool backward)
{
    bool wide = backward ? is_wide<T>(a->H, a->y, a->dout, a->dy)
                         : is_wide<T>(a->H, a->y, a->shared, a->out);

    return wide ? unpermute<T, 16 / (int)sizeof(T)>(stream, a, backward)
                : unpermute<T, 1>(stream, a, backward);
}

hy3_status hy3_cuda_unpermute_forward(struct hy3_stream *stream, const struct hy3_unpermute *a)
{
    return a->dtype == HY3_FP32 ? unpermute_by_width<float>(stream, a, false)
                                : unpermute_by_width<bf16>(stream, a, false);
}

hy3_status hy3_cuda_unpermute_backward(struct hy3_stream *stream, const struct hy3_unpermute *a)
{
    return a->dtype == HY3_FP32 ? unpermute_by_width<float>(stream, a, true)
                                : unpermute_by_width<bf16>(stream, a, true);
}
