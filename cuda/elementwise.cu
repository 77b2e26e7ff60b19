/* SPDX-License-Identifier: Apache-2.0 */
/* elementwise.cu - casts, sums, dropout, noise, sums of squares: each in one pass. Bound by
 * memory. */
#include "cuda/cuda.h"

extern "C" {
#include "cuda/random.h"
}

enum { THREADS = 256, EACH = 4 }; /* of a block; elements of a thread */

template <class X, class Y, bool wide> __global__ void cast_kernel(int64_t n, const X *x, Y *y)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * EACH;
    float value[EACH];

    load_before<wide>(value, x, i, n);
    store_before<wide>(y, value, i, n);
}

template <class X, class Y, bool wide> __global__ void add_kernel(int64_t n, const X *x, Y *y)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * EACH;
    float a[EACH], b[EACH];

    if (i >= n) /* what stands there instead is written by others meanwhile */
        return;
    load_before<wide>(a, x, i, n);
    load_before<wide>(b, y, i, n);
    HY3_UNROLL
    for (int j = 0; j < EACH; j++)
        b[j] += a[j];
    store_before<wide>(y, b, i, n);
}

/* Launches a kernel of n elements x of type X and y of type Y. */
#define LAUNCH(kernel, s, a, X, Y)                                                                 \
    do {                                                                                           \
        unsigned grid = blocks_for((a)->n, THREADS * EACH);                                        \
                                                                                                   \
        if (is_wide<float>((a)->n, (a)->x, (a)->y))                                                \
            HY3_CUDA_LAUNCH((kernel<X, Y, true>), grid, THREADS, 0, s, (a)->n, (const X *)(a)->x,  \
                            (Y *)(a)->y);                                                          \
        else                                                                                       \
            HY3_CUDA_LAUNCH((kernel<X, Y, false>), grid, THREADS, 0, s, (a)->n, (const X *)(a)->x, \
                            (Y *)(a)->y);                                                          \
    } while (0)

hy3_status hy3_cuda_cast(struct hy3_stream *stream, const struct hy3_cast *a)
{
    cudaStream_t s = hy3_cuda_stream(stream)->stream;

    if (a->n == 0)
        return HY3_OK;
    if (a->x_dtype == a->y_dtype)
        HY3_CUDA_TRY(cudaMemcpyAsync(a->y, a->x, (size_t)a->n * hy3_dtype_size(a->x_dtype),
                                     cudaMemcpyDeviceToDevice, s));
    else if (a->x_dtype == HY3_FP32)
        LAUNCH(cast_kernel, s, a, float, bf16);
    else
        LAUNCH(cast_kernel, s, a, bf16, float);
    return HY3_OK;
}

hy3_status hy3_cuda_add(struct hy3_stream *stream, const struct hy3_add *a)
{
    cudaStream_t s = hy3_cuda_stream(stream)->stream;

    if (a->n > 0)
        HY3_BY_TYPE(a->x_dtype, X, HY3_BY_TYPE(a->y_dtype, Y, LAUNCH(add_kernel, s, a, X, Y)));
    return HY3_OK;
}

/* A thread has two groups of N adjacent columns, N a multiple of 4. Grid (columns, rows). */
template <class T, int N, bool wide>
__global__ void dropout_kernel(int64_t C, uint64_t limit, float keep, uint32_t key0, uint32_t key1,
                               uint32_t place, const uint64_t *keys, const T *x, T *y)
{
    int64_t columns[2], row = (int64_t)blockIdx.y * C;
    uint64_t key = keys[blockIdx.y];
    float value[2][N];

    HY3_UNROLL
    for (int g = 0; g < 2; g++) {
        columns[g] = ((blockIdx.x * 2 + g) * (int64_t)blockDim.x + threadIdx.x) * N;
        load_before<wide>(value[g], x + row, columns[g], C);
    }
    HY3_UNROLL
    for (int g = 0; g < 2; g++) {
        HY3_UNROLL
        for (int n = 0; n < N; n += 4) {
            uint64_t four = (uint64_t)(columns[g] + n) / 4;
            uint32_t word[4];

            philox(key0, key1, key, (uint64_t)place << 32 | four, word);
            HY3_UNROLL
            for (int i = 0; i < 4; i++)
                value[g][n + i] = word[i] >= limit ? value[g][n + i] * keep : 0.0f;
        }
        store_before<wide>(y + row, value[g], columns[g], C);
    }
}

template <class T, bool wide>
static hy3_status dropout(struct hy3_stream *stream, const struct hy3_dropout *a)
{
    enum { ROWS = 32768, N = 16 / sizeof(T) }; /* of a launch; columns of a group */

    uint32_t key0 = (uint32_t)a->seed;
    uint32_t key1 = (uint32_t)(a->seed >> 32) ^ ((uint32_t)HY3_RANDOM_DROPOUT * 0x9e3779b1u);
    unsigned threads = threads_for((a->C + 2 * N - 1) / (2 * N), THREADS);

    for (int64_t row = 0; row < a->N; row += ROWS) {
        dim3 grid(blocks_for(a->C, 2 * N * threads),
                  (unsigned)(a->N - row < ROWS ? a->N - row : (int64_t)ROWS));

        HY3_CUDA_LAUNCH((dropout_kernel<T, N, wide>), grid, threads, 0,
                        hy3_cuda_stream(stream)->stream, a->C, (uint64_t)((double)a->p * 0x1p32),
                        1 / (1 - a->p), key0, key1, a->stream_id, a->keys + row,
                        (const T *)a->x + row * a->C, (T *)a->y + row * a->C);
    }
    return HY3_OK;
}

hy3_status hy3_cuda_dropout(struct hy3_stream *stream, const struct hy3_dropout *a)
{
    HY3_BY_TYPE(a->dtype, T,
                return is_wide<T>(a->C, a->x, a->y) ? dropout<T, true>(stream, a)
                                                    : dropout<T, false>(stream, a));
}

/* A thread has N adjacent columns, N a multiple of 4. Grid (columns, rows). */
template <class T, int N, bool wide>
__global__ void noise_kernel(int64_t C, uint32_t key0, uint32_t key1, const uint64_t *keys,
                             const float *scale, T *y)
{
    int64_t row = (int64_t)blockIdx.y * C;
    int64_t column = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) * N;
    float value[N];

    if (column >= C) /* as in add_kernel */
        return;
    load_before<wide>(value, y + row, column, C);
    HY3_UNROLL
    for (int n = 0; n < N; n += 4) {
        uint32_t word[4];

        philox(key0, key1, keys[blockIdx.y], (uint64_t)(column + n) / 4, word);
        HY3_UNROLL
        for (int i = 0; i < 4; i++)
            value[n + i] += scale[blockIdx.y] * (2 * ((float)(word[i] >> 8) * 0x1p-24f) - 1);
    }
    store_before<wide>(y + row, value, column, C);
}

template <class T, bool wide>
static hy3_status noise(struct hy3_stream *stream, const struct hy3_noise *a)
{
    enum { ROWS = 32768, N = 16 / sizeof(T) }; /* of a launch; columns of a thread */

    uint32_t key0 = (uint32_t)a->seed;
    uint32_t key1 = (uint32_t)(a->seed >> 32) ^ ((uint32_t)HY3_RANDOM_NOISE * 0x9e3779b1u);
    unsigned threads = threads_for((a->C + N - 1) / N, THREADS);

    for (int64_t row = 0; row < a->N; row += ROWS) {
        dim3 grid(blocks_for(a->C, N * threads),
                  (unsigned)(a->N - row < ROWS ? a->N - row : (int64_t)ROWS));

        HY3_CUDA_LAUNCH((noise_kernel<T, N, wide>), grid, threads, 0,
                        hy3_cuda_stream(stream)->stream, a->C, key0, key1, a->keys + row,
                        a->scale + row, (T *)a->y + row * a->C);
    }
    return HY3_OK;
}

hy3_status hy3_cuda_noise(struct hy3_stream *stream, const struct hy3_noise *a)
{
    HY3_BY_TYPE(a->dtype, T,
                return is_wide<T>(a->C, a->y) ? noise<T, true>(stream, a)
                                              : noise<T, false>(stream, a));
}

/* In a sum of squares: elements of a thread; of a block, which gives one partial sum. */
enum { SQUARES = 32, PIECE = THREADS * SQUARES };

/* partial[block] = sum of the squares of its PIECE elements, or of all n in one smaller block. */
template <class T, int N, bool wide>
__global__ void square_kernel(int64_t n, const T *x, double *partial)
{
    HY3_SHARED(double, red, [33]);
    int64_t first = (int64_t)blockIdx.x * PIECE + threadIdx.x * N;
    float value[SQUARES / N][N];
    double sum = 0;

    HY3_UNROLL
    for (int j = 0; j < SQUARES / N; j++)
        load_before<wide>(value[j], x, first + j * (int)blockDim.x * N, n);
    HY3_UNROLL
    for (int j = 0; j < SQUARES / N; j++) {
        HY3_UNROLL
        for (int i = 0; i < N; i++)
            sum += (double)value[j][i] * (double)value[j][i];
    }
    sum = block_sum(sum, red);
    if (threadIdx.x == 0)
        partial[blockIdx.x] = sum;
}

/* One block. */
__global__ void square_end_kernel(int64_t pieces, const double *partial, int accumulate,
                                  double *out)
{
    HY3_SHARED(double, red, [33]);
    double sum = 0;

    for (int64_t i = threadIdx.x; i < pieces; i += blockDim.x)
        sum += partial[i];
    sum = block_sum(sum, red);
    if (threadIdx.x == 0)
        *out = accumulate ? *out + sum : sum;
}

template <class T>
static hy3_status square(struct hy3_stream *stream, const struct hy3_square_sum *a, double *partial)
{
    enum { N = 16 / sizeof(T) };

    cudaStream_t s = hy3_cuda_stream(stream)->stream;
    unsigned threads = threads_for((a->n + SQUARES - 1) / SQUARES, THREADS);

    if (is_wide<T>(a->n, a->x))
        HY3_CUDA_LAUNCH((square_kernel<T, N, true>), blocks_for(a->n, PIECE), threads, 0, s, a->n,
                        (const T *)a->x, partial);
    else
        HY3_CUDA_LAUNCH((square_kernel<T, N, false>), blocks_for(a->n, PIECE), threads, 0, s, a->n,
                        (const T *)a->x, partial);
    return HY3_OK;
}

hy3_status hy3_cuda_square_sum(struct hy3_stream *stream, const struct hy3_square_sum *a)
{
    int64_t pieces = blocks_for(a->n, PIECE);
    double *partial = NULL;

    if (pieces > 0) {
        HY3_TRY(
            hy3_cuda_scratch(stream, HY3_SLOT_PARTIAL, (size_t)pieces * sizeof *partial, &partial));
        HY3_BY_TYPE(a->dtype, T, HY3_TRY(square<T>(stream, a, partial)));
    }
    HY3_CUDA_LAUNCH(square_end_kernel, 1, threads_for(pieces, 1024), 0,
                    hy3_cuda_stream(stream)->stream, pieces, partial, (int)a->accumulate, a->sum);
    return HY3_OK;
}

/* Columns of a block; its threads share the rows of each. */
enum { COLUMNS = 8 };

__global__ void add_rows_kernel(int64_t rows, int64_t columns, const float *x, float *sum)
{
    HY3_SHARED(float, sums, [32][COLUMNS]);
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;
    int64_t column = (int64_t)blockIdx.x * COLUMNS + lane % COLUMNS;
    float own = 0;

    for (int64_t row = threadIdx.x / COLUMNS; row < rows && column < columns;
         row += blockDim.x / COLUMNS)
        own += x[row * columns + column];
    for (int distance = COLUMNS; distance < 32; distance *= 2)
        own += __shfl_xor_sync(0xffffffffu, own, distance);
    if (lane < COLUMNS)
        sums[warp][lane] = own;
    __syncthreads();
    if (threadIdx.x >= COLUMNS || column >= columns)
        return;
    own = sum[column];
    for (int i = 0; i < warps; i++)
        own += sums[i][lane];
    sum[column] = own;
}

hy3_status hy3_cuda_add_rows(struct hy3_stream *stream, int64_t rows, int64_t columns,
                             const float *x, float *sum)
{
    HY3_CUDA_LAUNCH(add_rows_kernel, blocks_for(columns, COLUMNS),
                    threads_for(rows * COLUMNS, 1024), 0, hy3_cuda_stream(stream)->stream, rows,
                    columns, x, sum);
    return HY3_OK;
}
