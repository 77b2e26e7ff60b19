/* SPDX-License-Identifier: Apache-2.0 */
/* scaled.cu - 8-bit weights with scales, from and to those of the computation. Bound by memory. */
#include "cuda/cuda.h"

#include <float.h>
#include <string.h>

enum { THREADS = 256, EACH = 16 }; /* of a block; elements of a thread */

HY3_DEVICE float float_of(uint32_t bits)
{
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

HY3_DEVICE uint32_t bits_of(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return bits;
}

/* The same bits as base/dtype.h. */
HY3_DEVICE float from_fp8(uint8_t x)
{
    float magnitude = float_of((uint32_t)(x & 0x7f) << 20) * 0x1p120f;

    return float_of((uint32_t)(x & 0x80) << 24 | bits_of(magnitude));
}

HY3_DEVICE uint8_t to_fp8(float x)
{
    const float steps = 0x1p14f;
    uint32_t bits = bits_of(x), rest = bits & 0x7fffffff;
    uint32_t normal = ((rest + 0x7ffff + (rest >> 20 & 1)) >> 20) - (120 << 3);
    uint32_t small = bits_of(float_of(rest) + steps) - bits_of(steps);
    uint32_t code = rest < 0x3c800000 ? small : normal;

    return (uint8_t)((bits >> 24 & 0x80) | (code > 0x7e ? 0x7e : code));
}

/* A thread has N adjacent elements of a row, all of one block. */
template <class Y, int N>
__global__ void expand_kernel(int64_t count, int64_t rows_of_all, int64_t K, int64_t rows,
                              int64_t columns, int64_t stride, const uint8_t *x,
                              const float *scales, Y *y)
{
    int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * N, row = i / K;
    int64_t across = (K + columns - 1) / columns;
    pack<uint8_t, N> in;
    float out[N], scale;

    if (i >= count)
        return;
    scale = scales[row / rows_of_all * stride + row % rows_of_all / rows * across +
                   (i - row * K) / columns];
    in = load_pack<N>(x + i);
    HY3_UNROLL
    for (int j = 0; j < N; j++)
        out[j] = from_fp8(in.value[j]) * scale;
    HY3_UNROLL
    for (int j = 0; j < N; j += N < 4 ? N : 4) {
        constexpr int each = N < 4 ? N : 4;
        float part[each];

        HY3_UNROLL
        for (int k = 0; k < each; k++)
            part[k] = out[j + k];
        store(y + i + j, part);
    }
}

hy3_status hy3_cuda_expand(struct hy3_stream *stream, const struct hy3_expand *a)
{
    cudaStream_t s = hy3_cuda_stream(stream)->stream;
    int64_t count = a->M * a->N * a->K;
    bool wide = a->K % EACH == 0 && (a->columns % EACH == 0 || a->columns >= a->K) &&
                is_wide<float>(4, a->x, a->y);

    if (count == 0)
        return HY3_OK;
    HY3_BY_TYPE(a->dtype, Y, {
        if (wide)
            HY3_CUDA_LAUNCH((expand_kernel<Y, EACH>), blocks_for(count, THREADS * EACH), THREADS, 0,
                            s, count, a->N, a->K, a->rows, a->columns, a->stride, a->x, a->scales,
                            (Y *)a->y);
        else
            HY3_CUDA_LAUNCH((expand_kernel<Y, 1>), blocks_for(count, THREADS), THREADS, 0, s, count,
                            a->N, a->K, a->rows, a->columns, a->stride, a->x, a->scales, (Y *)a->y);
    });
    return HY3_OK;
}

/* A block of threads for each block of the matrix. */
template <class X>
__global__ void quantize_kernel(int64_t N, int64_t K, int64_t rows, int64_t columns, const X *x,
                                uint8_t *y, float *scales)
{
    HY3_SHARED(float, red, [33]);
    int64_t across = (K + columns - 1) / columns;
    int64_t row = blockIdx.x / across * rows, column = blockIdx.x % across * columns;
    int64_t height = N - row < rows ? N - row : rows;
    int64_t width = K - column < columns ? K - column : columns;
    float most = 0, scale;

    for (int64_t i = threadIdx.x; i < height * width; i += blockDim.x)
        most = fmaxf(most, fabsf(to_float(x[(row + i / width) * K + column + i % width])));
    most = block_max(most, red);
    scale = most / 448;
    scale = most == 0 ? 1 : scale < FLT_MIN ? FLT_MIN : scale;
    if (threadIdx.x == 0)
        scales[blockIdx.x] = scale;
    for (int64_t i = threadIdx.x; i < height * width; i += blockDim.x) {
        int64_t at = (row + i / width) * K + column + i % width;

        y[at] = to_fp8(to_float(x[at]) / scale);
    }
}

hy3_status hy3_cuda_quantize(struct hy3_stream *stream, const struct hy3_quantize *a)
{
    cudaStream_t s = hy3_cuda_stream(stream)->stream;
    int64_t blocks = hy3_blocks(a->N, a->rows) * hy3_blocks(a->K, a->columns);

    if (blocks == 0)
        return HY3_OK;
    HY3_BY_TYPE(a->dtype, X,
                HY3_CUDA_LAUNCH(quantize_kernel<X>, (unsigned)blocks, THREADS, 0, s, a->N, a->K,
                                a->rows, a->columns, (const X *)a->x, a->y, a->scales));
    return HY3_OK;
}
