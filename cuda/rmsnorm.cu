/* SPDX-License-Identifier: Apache-2.0 */
/* rmsnorm.cu - RMSNorm, one block per row, or per few rows where dw is computed. Bound by memory:
 * 2 T H elements forward, 4 T H backward. */
#include "cuda/cuda.h"

/* Rows whose contributions to dw are summed by one block, and columns of that block; shared memory
 * of a block on any device. */
enum { ROWS = 32, COLUMNS = 64, SHARED = 48 << 10 };

template <class T, int N>
__global__ void rmsnorm_forward_kernel(int64_t H, float eps, const T *x, const T *w, T *y, float *r)
{
    HY3_SHARED(float, red, [33]);
    const T *row = x + (int64_t)blockIdx.x * H;
    float sum = 0, scale, a[N], b[N];

    for (int64_t i = threadIdx.x * N; i < H; i += blockDim.x * N) {
        load(a, row + i);
        HY3_UNROLL
        for (int j = 0; j < N; j++)
            sum += a[j] * a[j];
    }
    scale = 1 / sqrtf(block_sum(sum, red) / (float)H + eps);
    for (int64_t i = threadIdx.x * N; i < H; i += blockDim.x * N) {
        load(a, row + i);
        load(b, w + i);
        HY3_UNROLL
        for (int j = 0; j < N; j++)
            a[j] = b[j] * (a[j] * scale);
        store(y + (int64_t)blockIdx.x * H + i, a);
    }
    if (threadIdx.x == 0)
        r[blockIdx.x] = scale;
}

/* dx += r (w dy - x r^2 mean(w dy x)), `each` rows per block. With has_dw: partial[block][column]
 * = sum of x r dy over its rows; a thread sums the columns that it reads anyway, in shared
 * memory. */
template <class T, int N, bool has_dw>
__global__ void rmsnorm_backward_kernel(int64_t rows, int64_t H, int64_t each, const T *x,
                                        const T *w, const float *r, const T *dy, T *dx,
                                        float *partial)
{
    HY3_SHARED(float, red, [33]);
    HY3_DYNAMIC_SHARED(memory);
    float *dw = (float *)memory, xs[N], ws[N], dys[N], dxs[N];
    int64_t begin = blockIdx.x * each, end = begin + each < rows ? begin + each : rows;

    for (int64_t i = threadIdx.x * N; has_dw && i < H; i += blockDim.x * N) {
        HY3_UNROLL
        for (int j = 0; j < N; j++)
            dw[i + j] = 0;
    }
    for (int64_t t = begin; t < end; t++) {
        int64_t first = t * H;
        float sum = 0, scale = r[t];

        for (int64_t i = threadIdx.x * N; i < H; i += blockDim.x * N) {
            load(xs, x + first + i);
            load(ws, w + i);
            load(dys, dy + first + i);
            HY3_UNROLL
            for (int j = 0; j < N; j++)
                sum += xs[j] * ws[j] * dys[j];
            if (has_dw)
                add_products(dw + i, xs, dys, scale);
        }
        sum = -scale * scale * scale * (block_sum(sum, red) / (float)H);
        for (int64_t i = threadIdx.x * N; i < H; i += blockDim.x * N) {
            load(xs, x + first + i);
            load(ws, w + i);
            load(dys, dy + first + i);
            load(dxs, dx + first + i);
            HY3_UNROLL
            for (int j = 0; j < N; j++)
                dxs[j] += ws[j] * dys[j] * scale + xs[j] * sum;
            store(dx + first + i, dxs);
        }
    }
    for (int64_t i = threadIdx.x * N; has_dw && i < H; i += blockDim.x * N)
        store_pack(partial + blockIdx.x * H + i, load_pack<N>((const float *)dw + i));
}

/* partial[block of ROWS rows][column] = sum x r dy, for rows that are too long for shared memory.
 * Grid (columns, blocks). */
template <class T>
__global__ void rmsnorm_dw_kernel(int64_t rows, int64_t H, const T *x, const float *r, const T *dy,
                                  float *partial)
{
    int64_t column = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    int64_t first = (int64_t)blockIdx.y * ROWS, end = first + ROWS < rows ? first + ROWS : rows;
    float sum = 0;

    if (column >= H)
        return;
    for (int64_t t = first; t < end; t++)
        sum += to_float(x[t * H + column]) * to_float(dy[t * H + column]) * r[t];
    partial[(int64_t)blockIdx.y * H + column] = sum;
}

template <class T, int N>
static hy3_status forward(struct hy3_stream *stream, const struct hy3_rmsnorm *a)
{
    HY3_CUDA_LAUNCH((rmsnorm_forward_kernel<T, N>), (unsigned)a->T, threads_for(a->H / N), 0,
                    hy3_cuda_stream(stream)->stream, a->H, a->eps, (const T *)a->x, (const T *)a->w,
                    (T *)a->y, a->r);
    return HY3_OK;
}

template <class T, int N, bool has_dw>
static hy3_status input_gradient(struct hy3_stream *stream, const struct hy3_rmsnorm *a,
                                 int64_t each, float *partial)
{
    HY3_CUDA_LAUNCH((rmsnorm_backward_kernel<T, N, has_dw>), blocks_for(a->T, each),
                    threads_for(a->H / N, has_dw ? 512 : 256),
                    has_dw ? (size_t)a->H * sizeof(float) : 0, hy3_cuda_stream(stream)->stream,
                    a->T, a->H, each, (const T *)a->x, (const T *)a->w, a->r, (const T *)a->dy,
                    (T *)a->dx, partial);
    return HY3_OK;
}

/* Rows of a block that sums dw: enough blocks to keep a device busy, few enough that reading their
 * sums is cheap. */
static int64_t rows_each(int64_t T)
{
    return T > 8 * 1024 ? (T + 1023) / 1024 : 8;
}

template <class T, int N>
static hy3_status backward(struct hy3_stream *stream, const struct hy3_rmsnorm *a)
{
    bool fused = (size_t)a->H * sizeof(float) <= SHARED;
    int64_t each = fused ? rows_each(a->T) : (int64_t)ROWS, blocks = (a->T + each - 1) / each;
    float *partial;

    if (!a->dw)
        return input_gradient<T, N, false>(stream, a, 1, NULL);
    HY3_TRY(hy3_cuda_scratch(stream, HY3_SLOT_PARTIAL, (size_t)(blocks * a->H) * sizeof *partial,
                             &partial));
    if (fused) {
        HY3_TRY((input_gradient<T, N, true>(stream, a, each, partial)));
    } else {
        HY3_TRY((input_gradient<T, N, false>(stream, a, 1, NULL)));
        HY3_CUDA_LAUNCH(rmsnorm_dw_kernel<T>, dim3(blocks_for(a->H, COLUMNS), (unsigned)blocks),
                        COLUMNS, 0, hy3_cuda_stream(stream)->stream, a->T, a->H, (const T *)a->x,
                        a->r, (const T *)a->dy, partial);
    }
    return hy3_cuda_add_rows(stream, blocks, a->H, partial, a->dw);
}

hy3_status hy3_cuda_rmsnorm_forward(struct hy3_stream *stream, const struct hy3_rmsnorm *a)
{
    if (a->T == 0)
        return HY3_OK;
    HY3_BY_WIDTH(a->dtype, T, is_wide<T>(a->H, a->x, a->w, a->y), N,
                 return forward<T, N>(stream, a));
}

hy3_status hy3_cuda_rmsnorm_backward(struct hy3_stream *stream, const struct hy3_rmsnorm *a)
{
    if (a->T == 0)
        return HY3_OK;
    HY3_BY_WIDTH(a->dtype, T, is_wide<T>(a->H, a->x, a->w, a->dy, a->dx), N,
                 return backward<T, N>(stream, a));
}
