/* SPDX-License-Identifier: Apache-2.0 */
/* swiglu.cu - silu(gate) up. Grid (columns, rows); bound by memory: 3 N I elements forward, 5
 * backward. */
#include "cuda/cuda.h"

enum { ROWS = 32768 }; /* of a launch */

template <class T, int N>
__global__ void swiglu_forward_kernel(int64_t I, int64_t ld, const T *gate, const T *up, T *y)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * N, row = blockIdx.y;
    float g[N], u[N];

    if (i >= I)
        return;
    load(g, gate + row * ld + i);
    load(u, up + row * ld + i);
    HY3_UNROLL
    for (int j = 0; j < N; j++)
        g[j] = g[j] * sigmoid(g[j]) * u[j];
    store(y + row * I + i, g);
}

/* dgate and dup may be gate and up: a thread reads its elements before it writes them. */
template <class T, int N>
__global__ void swiglu_backward_kernel(int64_t I, int64_t ld, const T *gate, const T *up,
                                       const T *dy, T *dgate, T *dup)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * N, row = blockIdx.y;
    float g[N], u[N], d[N];

    if (i >= I)
        return;
    load(g, gate + row * ld + i);
    load(u, up + row * ld + i);
    load(d, dy + row * I + i);
    HY3_UNROLL
    for (int j = 0; j < N; j++) {
        float s = sigmoid(g[j]), dg = d[j] * u[j] * s * (1 + g[j] * (1 - s));

        u[j] = d[j] * g[j] * s;
        g[j] = dg;
    }
    store(dgate + row * ld + i, g);
    store(dup + row * ld + i, u);
}

template <class T, int N>
static hy3_status launch(struct hy3_stream *stream, const struct hy3_swiglu *a, bool backward)
{
    cudaStream_t s = hy3_cuda_stream(stream)->stream;
    unsigned threads = threads_for((a->I + N - 1) / N);

    for (int64_t row = 0; row < a->N; row += ROWS) {
        dim3 grid(blocks_for(a->I, threads * N),
                  (unsigned)(a->N - row < ROWS ? a->N - row : (int64_t)ROWS));
        const T *gate = (const T *)a->gate + row * a->ld, *up = (const T *)a->up + row * a->ld;

        if (backward)
            HY3_CUDA_LAUNCH((swiglu_backward_kernel<T, N>), grid, threads, 0, s, a->I, a->ld, gate,
                            up, (const T *)a->dy + row * a->I, (T *)a->dgate + row * a->ld,
                            (T *)a->dup + row * a->ld);
        else
            HY3_CUDA_LAUNCH((swiglu_forward_kernel<T, N>), grid, threads, 0, s, a->I, a->ld, gate,
                            up, (T *)a->y + row * a->I);
    }
    return HY3_OK;
}

hy3_status hy3_cuda_swiglu_forward(struct hy3_stream *stream, const struct hy3_swiglu *a)
{
    HY3_BY_WIDTH(a->dtype, T, is_wide<T>(a->I, a->gate, a->up, a->y) && is_wide<T>(a->ld, a->gate),
                 N, return launch<T, N>(stream, a, false));
}

hy3_status hy3_cuda_swiglu_backward(struct hy3_stream *stream, const struct hy3_swiglu *a)
{
    HY3_BY_WIDTH(a->dtype, T,
                 is_wide<T>(a->I, a->gate, a->up, a->dy) && is_wide<T>(a->ld, a->dgate, a->dup), N,
                 return launch<T, N>(stream, a, true));
}
