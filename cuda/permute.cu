/* SPDX-License-Identifier: Apache-2.0 */
/* permute.cu - token rows to the order of the experts and back, and products of rows: one block per
 * token or per few rows. Bound by memory. */
#include "cuda/cuda.h"

/* Rows that a block of permute_forward copies together, or row_dot multiplies. */
enum { ROWS = 4 };

__global__ void block_order_kernel(int64_t blocks, const int64_t *table, int32_t *token,
                                   int32_t *position)
{
    int64_t first = table[blockIdx.x], second = table[blocks + blockIdx.x];

    for (int64_t i = threadIdx.x; i < table[2 * blocks + blockIdx.x]; i += blockDim.x) {
        token[second + i] = (int32_t)(first + i);
        position[first + i] = (int32_t)(second + i);
    }
}

hy3_status hy3_cuda_block_order(struct hy3_stream *stream, const struct hy3_block_order *a)
{
    HY3_CUDA_LAUNCH(block_order_kernel, (unsigned)a->blocks, 256, 0,
                    hy3_cuda_stream(stream)->stream, a->blocks, a->table, a->token, a->position);
    return HY3_OK;
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

template <class T, int N>
__global__ void unpermute_backward_kernel(int64_t H, int k, const int32_t *position,
                                          const float *weights, const T *dout, T *dy)
{
    const int32_t *rows = position + (int64_t)blockIdx.x * k;
    const float *weight = weights + (int64_t)blockIdx.x * k;

    for (int64_t i = threadIdx.x * N; i < H; i += blockDim.x * N) {
        float d[N], own[N];

        load(d, dout + (int64_t)blockIdx.x * H + i);
        for (int j = 0; j < k; j++) {
            HY3_UNROLL
            for (int n = 0; n < N; n++)
                own[n] = weight[j] * d[n];
            store(dy + (int64_t)rows[j] * H + i, own);
        }
    }
}

/* A warp for each row. */
template <class T, int N>
__global__ void row_dot_kernel(int64_t rows, int64_t C, const T *a, const T *b, const int32_t *to,
                               float *y)
{
    int64_t row = (int64_t)blockIdx.x * (blockDim.x >> 5) + (threadIdx.x >> 5);
    int lane = threadIdx.x & 31;
    float x[N], z[N], sum = 0;

    if (row >= rows)
        return;
    for (int64_t i = lane * N; i < C; i += 32 * N) {
        load(x, a + row * C + i);
        load(z, b + row * C + i);
        HY3_UNROLL
        for (int n = 0; n < N; n++)
            sum += x[n] * z[n];
    }
    sum = warp_sum(sum);
    if (lane == 0)
        y[to ? to[row] : row] = sum;
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

template <class T, int N>
static hy3_status unpermute_backward(struct hy3_stream *stream, const struct hy3_unpermute *a)
{
    if (a->T > 0)
        HY3_CUDA_LAUNCH((unpermute_backward_kernel<T, N>), (unsigned)a->T, threads_for(a->H / N), 0,
                        hy3_cuda_stream(stream)->stream, a->H, (int)a->k, a->position, a->weights,
                        (const T *)a->dout, (T *)a->dy);
    return HY3_OK;
}

template <class T, int N>
static hy3_status row_dot(struct hy3_stream *stream, const struct hy3_row_dot *a)
{
    if (a->N > 0)
        HY3_CUDA_LAUNCH((row_dot_kernel<T, N>), blocks_for(a->N, ROWS), 32 * ROWS, 0,
                        hy3_cuda_stream(stream)->stream, a->N, a->C, (const T *)a->a,
                        (const T *)a->b, a->to, a->y);
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
    HY3_BY_WIDTH(a->dtype, T, is_wide<T>(a->H, a->dout, a->dy), N,
                 return unpermute_backward<T, N>(stream, a));
}

hy3_status hy3_cuda_row_dot(struct hy3_stream *stream, const struct hy3_row_dot *a)
{
    if (a->to)
        HY3_CUDA_CHECK_INDICES(stream, row_dot, to, a->N, 0, a->N);
    HY3_BY_WIDTH(a->dtype, T, is_wide<T>(a->C, a->a, a->b), N, return row_dot<T, N>(stream, a));
}
