/* SPDX-License-Identifier: Apache-2.0 */
/* planted.cpp - kernels with planted faults: what the emulation must notice. Usage: planted SEED
 * FAULT (0: none); faults.tap judges what comes out.
 *
 * 1 no barrier between write and read        8 cp.async waits for one group too few
 * 2 no barrier where none is needed          9 double buffer refilled while it is read
 * 3 threads leave before a barrier          10 the host reads device memory
 * 4 a row too far                           11 a kernel is given host memory
 * 5 two barriers in two branches            12 a copy is read before it was waited for
 * 6 blocks add without atomics              13 a kernel is given freed memory
 * 7 no barrier at the end of a tile         14 a stream does not wait for another one's event
 *                                           15 as 4, inside the last page
 *                                           16 as 11, in a struct */
#include "cuda/launch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

typedef __nv_bfloat16 bf16;

static int fault;

HY3_DEVICE float warp_sum(float x)
{
    for (int distance = 16; distance > 0; distance /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
}

HY3_DEVICE float block_sum(float x, float *red)
{
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;

    x = warp_sum(x);
    if (lane == 0)
        red[warp] = x;
    if (fault != 1)
        __syncthreads();
    if (warp == 0) {
        float sum = warp_sum(lane < warps ? red[lane] : 0.0f);

        if (lane == 0)
            red[32] = sum;
    }
    __syncthreads();
    x = red[32];
    if (fault != 2) /* a next sum's first barrier comes before its write of red[32] */
        __syncthreads();
    return x;
}

__global__ void normalize(float *y, const float *x, int n)
{
    HY3_SHARED(float, red, [33]);
    const float *row = x + blockIdx.x * n;
    float sum = 0;

    for (int i = threadIdx.x; i < n; i += blockDim.x)
        sum += row[i];
    if (fault == 3 && threadIdx.x >= 64)
        return;
    if (fault == 5 && threadIdx.x < 32)
        __syncthreads();
    else
        __syncthreads();
    sum = block_sum(sum, red) + 0 * block_sum(1.0f, red);
    for (int i = threadIdx.x; i < n + (fault == 4 || fault == 15 ? 1 : 0); i += blockDim.x)
        y[blockIdx.x * n + i] = row[i < n ? i : 0] / sum;
}

struct columns {
    int rows, n;
    float *sums;
    const float *x;
};

__global__ void column_sums(const struct columns a)
{
    for (int row = blockIdx.x; row < a.rows; row += gridDim.x)
        for (int i = threadIdx.x; i < a.n; i += blockDim.x) {
            if (fault == 6)
                a.sums[i] += a.x[row * a.n + i];
            else
                atomicAdd(&a.sums[i], a.x[row * a.n + i]);
        }
}

/* C[16,16] = A[16,K] B[K,16] in tiles of 16. */
__global__ void tiled(float *C, const float *A, const float *B, int K)
{
    HY3_SHARED(float, a, [16][17]);
    HY3_SHARED(float, b, [16][17]);
    float sum = 0;

    for (int k = 0; k < K; k += 16) {
        a[threadIdx.y][threadIdx.x] = A[threadIdx.y * K + k + threadIdx.x];
        b[threadIdx.y][threadIdx.x] = B[(k + threadIdx.y) * 16 + threadIdx.x];
        __syncthreads();
        for (int i = 0; i < 16; i++)
            sum += a[threadIdx.y][i] * b[i][threadIdx.x];
        if (fault != 7)
            __syncthreads();
    }
    C[threadIdx.y * 16 + threadIdx.x] = sum;
}

/* C[64,64] = A[64,K] B[64,K]^T: cp.async into two buffers, xor swizzle, ldmatrix, mma. 4 warps. */
__global__ void tensor_cores(float *C, const bf16 *A, const bf16 *B, int K)
{
    HY3_DYNAMIC_SHARED(memory);
    bf16 *tile_a = (bf16 *)memory, *tile_b = tile_a + 2 * 64 * 32;
    int t = threadIdx.x, lane = t & 31, row0 = (t >> 6) * 32, column0 = (t >> 5 & 1) * 32;
    float sums[2][4][4] = {};
    auto at = [](int row, int chunk) { return row * 32 + ((chunk ^ (row >> 1 & 3)) << 3); };
    auto load = [&](int k, int buffer) {
        for (int i = t; i < 256; i += 128) {
            hy3_cp_async16(tile_a + buffer * 2048 + at(i >> 2, i & 3),
                           A + (i >> 2) * K + k + (i & 3) * 8);
            hy3_cp_async16(tile_b + buffer * 2048 + at(i >> 2, i & 3),
                           B + (i >> 2) * K + k + (i & 3) * 8);
        }
        hy3_cp_async_commit();
    };

    load(0, 0);
    for (int k = 0, buffer = 0; k < K; k += 32, buffer ^= 1) {
        if (k + 32 < K)
            load(k + 32, buffer ^ 1);
        else
            hy3_cp_async_commit();
        if (fault == 8)
            hy3_cp_async_wait<2>();
        else
            hy3_cp_async_wait<1>();
        __syncthreads();
        for (int kk = 0; kk < 32; kk += 16) {
            uint32_t a[2][4], b[2][4];

            for (int i = 0; i < 2; i++) {
                hy3_ldmatrix_x4(a[i], tile_a + buffer * 2048 +
                                          at(row0 + i * 16 + (lane & 15), (kk >> 3) + (lane >> 4)));
                hy3_ldmatrix_x4(b[i], tile_b + buffer * 2048 +
                                          at(column0 + i * 16 + (lane & 7) + (lane >> 4) * 8,
                                             (kk >> 3) + (lane >> 3 & 1)));
            }
            for (int i = 0; i < 2; i++)
                for (int j = 0; j < 4; j++) {
                    const uint32_t pair[2] = {b[j >> 1][(j & 1) * 2], b[j >> 1][(j & 1) * 2 + 1]};

                    hy3_mma_m16n8k16_bf16(sums[i][j], a[i], pair);
                }
        }
        if (fault != 9)
            __syncthreads();
    }
    hy3_cp_async_wait<0>();
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 4; j++)
            for (int e = 0; e < 4; e++)
                C[(row0 + i * 16 + (lane >> 2) + (e >> 1) * 8) * 64 + column0 + j * 8 +
                  (lane & 3) * 2 + (e & 1)] = sums[i][j][e];
}

static float value(int i)
{
    return (float)((i * 7919 + 13) % 17) / 8 + 0.125f;
}

template <class T> static T *on_device(const std::vector<T> &host)
{
    void *device;

    cudaMalloc(&device, host.size() * sizeof(T));
    cudaMemcpyAsync(device, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice, 0);
    cudaStreamSynchronize(0);
    return (T *)device;
}

static std::vector<float> values(int n)
{
    std::vector<float> x((size_t)n);

    for (int i = 0; i < n; i++)
        x[(size_t)i] = value(i);
    return x;
}

static int compare(const char *name, const float *device, const std::vector<float> &wanted)
{
    const size_t bytes = wanted.size() * sizeof(float);
    float *got = NULL; /* pinned: a copy into other memory waits */
    int wrong = 0;

    cudaMallocHost((void **)&got, bytes);
    memset(got, 0, bytes);
    cudaMemcpyAsync(got, device, bytes, cudaMemcpyDeviceToHost, 0);
    if (fault != 12)
        cudaStreamSynchronize(0);
    for (size_t i = 0; i < wanted.size(); i++)
        wrong += !(fabsf(got[i] - wanted[i]) <= 1e-4f * (1 + fabsf(wanted[i])));
    cudaStreamSynchronize(0);
    cudaFreeHost(got);
    if (wrong)
        printf("%s is wrong in %d places\n", name, wrong);
    return wrong;
}

static int run_normalize(void)
{
    const int rows = 3, n = fault == 15 ? 250 : 256; /* 256: the block ends at its guard page */
    std::vector<float> x = values(rows * n), wanted = x;
    float *in = on_device(x), *out = on_device(x), *host = x.data();
    cudaStream_t other;
    cudaEvent_t event;

    for (int row = 0; row < rows; row++) {
        float sum = 0;

        for (int i = 0; i < n; i++)
            sum += x[(size_t)(row * n + i)];
        for (int i = 0; i < n; i++)
            wanted[(size_t)(row * n + i)] = x[(size_t)(row * n + i)] / sum;
    }
    if (fault == 10)
        printf("%f\n", (double)in[3]);
    if (fault == 13)
        cudaFree(in);
    cudaStreamCreateWithFlags(&other, cudaStreamNonBlocking);
    cudaEventCreateWithFlags(&event, cudaEventDisableTiming);
    HY3_LAUNCH(normalize, rows, 128, 0, other, out, fault == 11 ? host : in, n);
    cudaEventRecord(event, other);
    if (fault != 14)
        cudaStreamWaitEvent(0, event, 0);
    return compare("normalize", out, wanted);
}

static int run_column_sums(void)
{
    const int rows = 8, n = 64;
    std::vector<float> x = values(rows * n), wanted((size_t)n, 0.0f);
    float *in = on_device(x), *out = on_device(wanted);

    for (int i = 0; i < rows * n; i++)
        wanted[(size_t)(i % n)] += x[(size_t)i];
    const struct columns a = {.rows = rows, .n = n, .sums = out, .x = fault == 16 ? x.data() : in};
    HY3_LAUNCH(column_sums, 4, 64, 0, 0, a);
    return compare("column_sums", out, wanted);
}

static int run_tiled(void)
{
    const int K = 64;
    std::vector<float> a = values(16 * K), b = values(K * 16), wanted(256, 0.0f);
    float *out = on_device(wanted);

    for (int i = 0; i < 16; i++)
        for (int j = 0; j < 16; j++)
            for (int k = 0; k < K; k++)
                wanted[(size_t)(i * 16 + j)] += a[(size_t)(i * K + k)] * b[(size_t)(k * 16 + j)];
    HY3_LAUNCH(tiled, 1, dim3(16, 16), 0, 0, out, on_device(a), on_device(b), K);
    return compare("tiled", out, wanted);
}

static int run_tensor_cores(void)
{
    const int K = 96;
    std::vector<bf16> a(64 * K), b(64 * K);
    std::vector<float> wanted(64 * 64, 0.0f);
    float *out = on_device(wanted);

    for (int i = 0; i < 64 * K; i++) {
        a[(size_t)i] = __float2bfloat16(value(i));
        b[(size_t)i] = __float2bfloat16(value(3 * i + 1));
    }
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < 64; j++)
            for (int k = 0; k < K; k++)
                wanted[(size_t)(i * 64 + j)] += __bfloat162float(a[(size_t)(i * K + k)]) *
                                                __bfloat162float(b[(size_t)(j * K + k)]);
    HY3_LAUNCH(tensor_cores, 1, 128, 4 * 64 * 32 * sizeof(bf16), 0, out, on_device(a), on_device(b),
               K);
    return compare("tensor_cores", out, wanted);
}

int main(int argc, char **argv)
{
    int wrong;

    if (argc < 3)
        return 2;
    fault = atoi(argv[2]);
    hy3_emu_seed(atoi(argv[1]));
    wrong = fault == 6 || fault == 16  ? run_column_sums()
            : fault == 7               ? run_tiled()
            : fault == 8 || fault == 9 ? run_tensor_cores()
                                       : run_normalize();
    if (fault == 0)
        wrong += run_column_sums() + run_tiled() + run_tensor_cores();
    return wrong != 0;
}
