/* SPDX-License-Identifier: Apache-2.0 */
/* permute.cu - token rows to the order of the experts and back, their labels on the way to other
 * ranks, and products of rows: one block per token or per few rows. Bound by memory. */
#include "cuda/cuda.h"

/* Rows that a block of permute_forward copies together, or row_dot multiplies. */
enum { ROWS = 4 };

/* The labels of a token's parcels, one parcel after the other: the next label, the end of its
 * parcel's. */
struct filling {
    int64_t slot, end;
};

/* What is left of a parcel is empty. */
__device__ static void close_parcel(hy3_row_label *labels, filling *f)
{
    const hy3_row_label empty = {-1, 0, 0};

    while (f->slot < f->end)
        labels[f->slot++] = empty;
}

/* parcel: -1, that of the label before. The number of the label. */
__device__ static int32_t put_label(hy3_row_label *labels, int64_t width, int32_t parcel,
                                    hy3_row_label label, filling *f)
{
    if (parcel >= 0) {
        close_parcel(labels, f);
        f->slot = parcel * width;
        f->end = f->slot + width;
    }
    labels[f->slot] = label;
    return (int32_t)f->slot++;
}

/* A thread for each token. */
__global__ void label_kernel(hy3_label a)
{
    int64_t t = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    filling f = {0, 0};

    if (t >= a.T)
        return;
    for (int64_t i = t * a.k; i < (t + 1) * a.k; i++) {
        hy3_row_label label;

        label.block = (int32_t)(a.ids[i] % a.held * a.sources + a.source);
        label.place = (int32_t)(a.position[i] - a.starts[a.ids[i]]);
        label.weight = a.weights[i];
        a.slot[i] = put_label(a.labels, a.width, a.parcel[i], label, &f);
    }
    close_parcel(a.labels, &f);
}

hy3_status hy3_cuda_label(struct hy3_stream *stream, const struct hy3_label *a)
{
    if (a->T > 0)
        HY3_CUDA_LAUNCH(label_kernel, blocks_for(a->T, 128), 128, 0,
                        hy3_cuda_stream(stream)->stream, *a);
    return HY3_OK;
}

/* A thread for each token. */
__global__ void relabel_kernel(hy3_relabel a)
{
    int64_t t = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    filling f = {0, 0};

    if (t >= a.T)
        return;
    for (int64_t i = t * a.k; i < (t + 1) * a.k; i++) {
        hy3_row_label label = a.came[i];

        a.slot[i] = 0;
        if (label.block < 0)
            continue;
        label.block = (int32_t)(label.block % a.blocks);
        a.slot[i] = put_label(a.labels, a.width, a.parcel[i], label, &f);
    }
    close_parcel(a.labels, &f);
}

hy3_status hy3_cuda_relabel(struct hy3_stream *stream, const struct hy3_relabel *a)
{
    if (a->T > 0)
        HY3_CUDA_LAUNCH(relabel_kernel, blocks_for(a->T, 128), 128, 0,
                        hy3_cuda_stream(stream)->stream, *a);
    return HY3_OK;
}

/* A thread for each label. */
__global__ void unlabel_kernel(hy3_unlabel a)
{
    int64_t s = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    hy3_row_label label;
    int32_t row = -1;

    if (s >= a.N * a.k)
        return;
    label = a.labels[s];
    if (label.block >= 0) {
        row = (int32_t)(a.first[label.block] + label.place);
        a.token[row] = (int32_t)(s / a.k);
        a.slot[row] = (int32_t)s;
    }
    a.position[s] = row;
    a.weights[s] = row < 0 ? 0 : label.weight;
}

hy3_status hy3_cuda_unlabel(struct hy3_stream *stream, const struct hy3_unlabel *a)
{
    if (a->N > 0)
        HY3_CUDA_LAUNCH(unlabel_kernel, blocks_for(a->N * a->k, 256), 256, 0,
                        hy3_cuda_stream(stream)->stream, *a);
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
                                         const float *weights, const T *y, const T *shared, T *out,
                                         int accumulate)
{
    const int32_t *rows = position + (int64_t)blockIdx.x * k;
    const float *weight = weights ? weights + (int64_t)blockIdx.x * k : NULL;
    int64_t own = (int64_t)blockIdx.x * H;

    for (int64_t i = threadIdx.x * N; i < H; i += blockDim.x * N) {
        float sum[N] = {};

        for (int j = 0; j < k; j++)
            if (rows[j] >= 0)
                add_to(sum, y + (int64_t)rows[j] * H + i, weight ? weight[j] : 1);
        if (shared)
            add_to(sum, shared + own + i);
        if (accumulate)
            add_to(sum, out + own + i);
        store(out + own + i, sum);
    }
}

template <class T, int N>
__global__ void unpermute_backward_kernel(int64_t H, int k, const int32_t *position,
                                          const float *weights, const T *dout, T *dy)
{
    const int32_t *rows = position + (int64_t)blockIdx.x * k;
    const float *weight = weights ? weights + (int64_t)blockIdx.x * k : NULL;

    for (int64_t i = threadIdx.x * N; i < H; i += blockDim.x * N) {
        float d[N], own[N];

        load(d, dout + (int64_t)blockIdx.x * H + i);
        for (int j = 0; j < k; j++) {
            if (rows[j] < 0)
                continue;
            HY3_UNROLL
            for (int n = 0; n < N; n++)
                own[n] = weight ? weight[j] * d[n] : d[n];
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
                        (const T *)a->y, (const T *)a->shared, (T *)a->out, (int)a->accumulate);
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
    HY3_CUDA_CHECK_INDICES(stream, unpermute, position, a->T * a->k, -1, a->R);
    HY3_BY_WIDTH(a->dtype, T, is_wide<T>(a->H, a->y, a->shared, a->out), N,
                 return unpermute_forward<T, N>(stream, a));
}

hy3_status hy3_cuda_unpermute_backward(struct hy3_stream *stream, const struct hy3_unpermute *a)
{
    HY3_CUDA_CHECK_INDICES(stream, unpermute, position, a->T * a->k, -1, a->R);
    HY3_BY_WIDTH(a->dtype, T, is_wide<T>(a->H, a->dout, a->dy), N,
                 return unpermute_backward<T, N>(stream, a));
}

hy3_status hy3_cuda_row_dot(struct hy3_stream *stream, const struct hy3_row_dot *a)
{
    if (a->to)
        HY3_CUDA_CHECK_INDICES(stream, row_dot, to, a->N, 0, a->places);
    HY3_BY_WIDTH(a->dtype, T, is_wide<T>(a->C, a->a, a->b), N, return row_dot<T, N>(stream, a));
}
