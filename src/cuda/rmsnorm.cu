/* rmsnorm.cu - RMSNorm of rows, a block each. Bound by memory: 2 T H elements forward, 4 T H backward. */
#include "cuda/cuda.h"

enum {
    ROWS = 32,
    COLUMNS = 64
}; /* rows whose part of dw is summed together; columns of a block that sums */

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

/* dx += r (w dy - x r^2 mean(w dy x)) */
template <class T, int N>
__global__ void rmsnorm_backward_kernel(int64_t H, const T *x, const T *w, const float *r,
                                        const T *dy, T *dx)
{
    HY3_SHARED(float, red, [33]);
    int64_t first = (int64_t)blockIdx.x * H;
    float sum = 0, scale = r[blockIdx.x], xs[N], ws[N], dys[N], dxs[N];

    for (int64_t i = threadIdx.x * N; i < H; i += blockDim.x * N) {
        load(xs, x + first + i);
        load(ws, w + i);
        load(dys, dy + first + i);
        HY3_UNROLL
        for (int j = 0; j < N; j++)
            sum += xs[j] * ws[j] * dys[j];
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

/* partial[block of ROWS rows][column] = sum x r dy. Grid (columns, blocks). */
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

/* dw[column] += the partial sums in their order. */
__global__ void sum_partials_kernel(int64_t blocks, int64_t H, const float *partial, float *dw)
{
    int64_t column = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    float sum;

    if (column >= H)
        return;
    sum = dw[column];
    for (int64_t b = 0; b < blocks; b++)
        sum += partial[b * H + column];
    dw[column] = sum;
}

template <class T> static hy3_status forward(struct hy3_stream *stream, const struct hy3_rmsnorm *a)
{
    cudaStream_t s = hy3_cuda_stream(stream)->stream;
    const int wide = 16 / (int)sizeof(T);

    if (is_wide<T>(a->H, a->x, a->w, a->y))
        HY3_CUDA_LAUNCH((rmsnorm_forward_kernel<T, wide>), (unsigned)a->T, threads_for(a->H / wide),
                        0, s, a->H, a->eps, (const T *)a->x, (const T *)a->w, (T *)a->y, a->r);
    else
        HY3_CUDA_LAUNCH((rmsnorm_forward_kernel<T, 1>), (unsigned)a->T, threads_for(a->H), 0, s,
                        a->H, a->eps, (const T *)a->x, (const T *)a->w, (T *)a->y, a->r);
    return HY3_OK;
}

template <class T>
static hy3_status backward(struct hy3_stream *stream, const struct hy3_rmsnorm *a)
{
    cudaStream_t s = hy3_cuda_stream(stream)->stream;
    const int wide = 16 / (int)sizeof(T);
    int64_t blocks = (a->T + ROWS - 1) / ROWS;
    unsigned columns = blocks_for(a->H, COLUMNS);
    void *partial;

    if (is_wide<T>(a->H, a->x, a->w, a->dy, a->dx))
        HY3_CUDA_LAUNCH((rmsnorm_backward_kernel<T, wide>), (unsigned)a->T,
                        threads_for(a->H / wide), 0, s, a->H, (const T *)a->x, (const T *)a->w,
                        a->r, (const T *)a->dy, (T *)a->dx);
    else
        HY3_CUDA_LAUNCH((rmsnorm_backward_kernel<T, 1>), (unsigned)a->T, threads_for(a->H), 0, s,
                        a->H, (const T *)a->x, (const T *)a->w, a->r, (const T *)a->dy, (T *)a->dx);
    if (!a->dw)
        return HY3_OK;
    HY3_STATUS_TRY(hy3_cuda_scratch(stream, HY3_SLOT_PARTIAL,
                                    (size_t)(blocks * a->H) * sizeof(float), &partial));
    HY3_CUDA_LAUNCH(rmsnorm_dw_kernel<T>, dim3(columns, (unsigned)blocks), COLUMNS, 0, s, a->T,
                    a->H, (const T *)a->x, a->r, (const T *)a->dy, (float *)partial);
    HY3_CUDA_LAUNCH(sum_partials_kernel, columns, COLUMNS, 0, s, blocks, a->H,
                    (const float *)partial, a->dw);
    return HY3_OK;
}

hy3_status hy3_cuda_rmsnorm_forward(struct hy3_stream *stream, const struct hy3_rmsnorm *a)
{
    if (a->T == 0)
        return HY3_OK;
    return a->dtype == HY3_FP32 ? forward<float>(stream, a) : forward<bf16>(stream, a);
}

hy3_status hy3_cuda_rmsnorm_backward(struct hy3_stream *stream, const struct hy3_rmsnorm *a)
{
    if (a->T == 0)
        return HY3_OK;
    return a->dtype == HY3_FP32 ? backward<float>(stream, a) : backward<bf16>(stream, a);
}
