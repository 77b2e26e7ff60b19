/* SPDX-License-Identifier: Apache-2.0 */
/* permute.cu - token rows to the order of the experts and back: one block per token or per few
 * rows. Bound by memory. */
#include "cuda/cuda.h"

/* Rows that a block of permute_forward copies together; expert rows of a token that
 * unpermute_backward processes together. */
enum { ROWS = 4, TOGETHER = 8 };

/* sums[j][32] = sum of x[j] over the block, visible to thread j; the barriers are shared by all
 * j. */
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

/* y is larger than the caches and must not evict the rows of x, each of which is read k times. */
template <class T, int N>
__global__ void permute_forward_kernel(int64_t R, int64_t H, const int32_t *token, const T *x, T *y)
{
    int64_t first = (int64_t)blockIdx.x * ROWS;
    const T *from[ROWS];
    pack<T, N> value[ROWS];

    HY3_UNROLL
    for (int j = 0; j < ROWS; j++) /* beyond the end the last row again: loads need no condition */
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

/* sum += N elements, each times `weight`. */
template <class T, int N> HY3_DEVICE void add_to(float (&sum)[N], const T *from, float weight = 1)
{
    float value[N];

    load(value, from);
    HY3_UNROLL
    for (int n = 0; n < N; n++)
        sum[n] += weight * value[n];
}

template <class T, int N>
__global__ void permute_backward_kernel(int64_t H, int k, const int32_t *position, const T *dy,
                                        T *dx, int accumulate)
{
    const int32_t *rows = position + (int64_t)blockIdx.x * k;
    T *to = dx + (int64_t)blockIdx.x * H;

    for (int64_t i = threadIdx.x * N; i < H; i += blockDim.x * N) {
        float sum[N] = {};

        if (accumulate)
            load(sum, to + i);
        for (int j = 0; j < k; j++)
            if (rows[j] >= 0)
                add_to(sum, dy + (int64_t)rows[j] * H + i);
        store(to + i, sum);
    }
}

template <class T, int N>
__global__ void unpermute_forward_kernel(int64_t H, int k, const int32_t *position,
                                         const float *weights, const T *y, const T *shared, T *out)
{
    const int32_t *rows = position + (int64_t)blockIdx.x * k;
    const float *weight = weights + (int64_t)blockIdx.x * k;
    int64_t own = (int64_t)blockIdx.x * H;

    for (int64_t i = threadIdx.x * N; i < H; i += blockDim.x * N) {
        float sum[N] = {};

        for (int j = 0; j < k; j++)
            add_to(sum, y + (int64_t)rows[j] * H + i, weight[j]);
        if (shared)
            add_to(sum, shared + own + i);
        add_to(sum, out + own + i);
        store(out + own + i, sum);
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
        for (int j = 0; j < TOGETHER; j++) { /* beyond the end the last row again */
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
static hy3_status permute_forward(struct hy3_stream *stream, const struct hy3_permute *a)
{
    if (a->R > 0)
        HY3_CUDA_LAUNCH((permute_forward_kernel<T, N>), blocks_for(a->R, ROWS),
                        threads_for(a->H / N), 0, hy3_cuda_stream(stream)->stream, a->R, a->H,
                        a->token, (const T *)a->x, (T *)a->y);
    return HY3_OK;
}

template <class T, int N>
static hy3_status permute_backward(struct hy3_stream *stream, const struct hy3_permute *a)
{
    if (a->T > 0)
        HY3_CUDA_LAUNCH((permute_backward_kernel<T, N>), (unsigned)a->T, threads_for(a->H / N), 0,
                        hy3_cuda_stream(stream)->stream, a->H, (int)a->k, a->position,
                        (const T *)a->dy, (T *)a->dx, (int)a->accumulate);
    return HY3_OK;
}

template <class T, int N>
static hy3_status unpermute_forward(struct hy3_stream *stream, const struct hy3_unpermute *a)
{
    if (a->T > 0)
        HY3_CUDA_LAUNCH((unpermute_forward_kernel<T, N>), (unsigned)a->T, threads_for(a->H / N), 0,
                        hy3_cuda_stream(stream)->stream, a->H, (int)a->k, a->position, a->weights,
                        (const T *)a->y, (const T *)a->shared, (T *)a->out);
    return HY3_OK;
}

/* Blocks of 128 threads: it uses many registers. */
template <class T, int N>
static hy3_status unpermute_backward(struct hy3_stream *stream, const struct hy3_unpermute *a)
{
    if (a->T > 0)
        HY3_CUDA_LAUNCH((unpermute_backward_kernel<T, N>), (unsigned)a->T,
                        threads_for(a->H / N, 128), 0, hy3_cuda_stream(stream)->stream, a->H,
                        (int)a->k, a->position, a->weights, (const T *)a->y, (const T *)a->dout,
                        (T *)a->dy, a->dweights);
    return HY3_OK;
}

hy3_status hy3_cuda_permute_forward(struct hy3_stream *stream, const struct hy3_permute *a)
{
    HY3_CUDA_CHECK_INDICES(stream, permute, token, a->R, 0, a->T);
    HY3_BY_WIDTH(a->dtype, T, is_wide<T>(a->H, a->x, a->y), N,
                 return permute_forward<T, N>(stream, a));
}

hy3_status hy3_cuda_permute_backward(struct hy3_stream *stream, const struct hy3_permute *a)
{
    HY3_CUDA_CHECK_INDICES(stream, permute, position, a->T * a->k, -1, a->R);
    HY3_BY_WIDTH(a->dtype, T, is_wide<T>(a->H, a->dy, a->dx), N,
                 return permute_backward<T, N>(stream, a));
}

hy3_status hy3_cuda_unpermute_forward(struct hy3_stream *stream, const struct hy3_unpermute *a)
{
    HY3_CUDA_CHECK_INDICES(stream, unpermute, position, a->T * a->k, 0, a->R);
    HY3_BY_WIDTH(a->dtype, T, is_wide<T>(a->H, a->y, a->shared, a->out), N,
                 return unpermute_forward<T, N>(stream, a));
}

hy3_status hy3_cuda_unpermute_backward(struct hy3_stream *stream, const struct hy3_unpermute *a)
{
    HY3_CUDA_CHECK_INDICES(stream, unpermute, position, a->T * a->k, 0, a->R);
    HY3_BY_WIDTH(a->dtype, T, is_wide<T>(a->H, a->y, a->dout, a->dy), N,
                 return unpermute_backward<T, N>(stream, a));
}
