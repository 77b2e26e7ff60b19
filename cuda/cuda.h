/* SPDX-License-Identifier: Apache-2.0 */
/* cuda.h - what the files of the CUDA backend share: errors of calls, streams, scratch memory,
 * elements of both dtypes.
 *
 * CUDA C++ in the manner of C: templates for the two dtypes and vector widths, nothing else of C++.
 * No MPI here, so that kernels and device build where there is only nvcc (make gpu-check). */
#ifndef HY3_CUDA_CUDA_H
#define HY3_CUDA_CUDA_H

#include "cuda/launch.h"

#include <cublasLt.h>
#include <cublas_v2.h>

#define _Noreturn __attribute__((noreturn))
extern "C" {
#include "backend/kernels.h"
}

/* What this library needs of the program that loads it; filled in by hy3_cuda_open, or by a
 * test. */
struct hy3_cuda_host {
    hy3_status (*fail)(hy3_status code, const char *file, int line, const char *format, ...);
    /* Returns when is_done says so; the job ends if that takes longer than ddp_timeout. */
    void (*wait_for)(bool (*is_done)(void *context), void *context, const char *phase);
};
extern struct hy3_cuda_host hy3_cuda_host;

/* An error text that names the call, its place and what to do. */
hy3_status hy3_cuda_failed(const char *call, const char *why, bool memory, const char *file,
                           int line);

/* The calling function returns a status and has nothing to release. */
#define HY3_CUDA_TRY(call)                                                                   \
    do {                                                                                     \
        cudaError_t error_ = (call);                                                         \
        if (error_ != cudaSuccess)                                                           \
            return hy3_cuda_failed(#call, cudaGetErrorString(error_),                        \
                                   error_ == cudaErrorMemoryAllocation, __FILE__, __LINE__); \
    } while (0)
#define HY3_CUBLAS_TRY(call)                                                                  \
    do {                                                                                      \
        cublasStatus_t error_ = (call);                                                       \
        if (error_ != CUBLAS_STATUS_SUCCESS)                                                  \
            return hy3_cuda_failed(#call, cublasGetStatusString(error_),                      \
                                   error_ == CUBLAS_STATUS_ALLOC_FAILED, __FILE__, __LINE__); \
    } while (0)
#define HY3_STATUS_TRY(call)         \
    do {                             \
        hy3_status status_ = (call); \
        if (status_ != HY3_OK)       \
            return status_;          \
    } while (0)
/* Launches a kernel, and returns the status of that from the calling function if it is an error. */
#define HY3_CUDA_LAUNCH(kernel, grid, block, shared, stream, ...)                            \
    do {                                                                                     \
        cudaError_t error_;                                                                  \
        HY3_LAUNCH(kernel, grid, block, shared, stream, __VA_ARGS__);                        \
        if ((error_ = cudaGetLastError()) != cudaSuccess)                                    \
            return hy3_cuda_failed("launch of " #kernel, cudaGetErrorString(error_),         \
                                   error_ == cudaErrorMemoryAllocation, __FILE__, __LINE__); \
    } while (0)

/* Grow-only device memory of a stream's kernels, one piece a slot, valid until the slot's next
 * use. */
enum hy3_cuda_slot {
    HY3_SLOT_PARTIAL,
    HY3_SLOT_ORDER,
    HY3_SLOT_FREQUENCIES,
    HY3_SLOT_TILES,
    HY3_SLOT_DELTA,
    HY3_SLOT_POINTERS,
    HY3_SLOT_BLAS,
    HY3_CUDA_SLOTS
};

/* Products of groups run on so many streams. */
enum { HY3_CUDA_LANES = 4 };

/* Small host data on its way to the device, a few pieces in flight. */
enum { HY3_UPLOADS = 8 };

struct hy3_cuda_upload {
    void *pinned;
    size_t capacity;
    cudaEvent_t arrived;
};

struct hy3_stream {
    cudaStream_t stream; /* 0: the default stream, which others wait for */

    struct {
        void *memory;
        size_t capacity;
    } scratch[HY3_CUDA_SLOTS];
    struct hy3_cuda_upload uploads[HY3_UPLOADS];
    int next_upload;
    /* of gemm.cu, created at first use; lane 0 is `stream` */
    cublasLtHandle_t lt;
    cublasHandle_t blas; /* of grouped calls */
    struct hy3_cuda_algorithms *algorithms;
    cudaStream_t lanes[HY3_CUDA_LANES];
    cudaEvent_t begun, ended[HY3_CUDA_LANES];
    /* of attention: the samples whose tiles the device has */
    int64_t *tiled;
    int64_t tiled_samples, tile_rows;
    int query_tiles, key_tiles;
    /* of rope: the frequencies the device has */
    double theta;
    int64_t D;
};

/* The stream to work on; NULL is the default one. */
struct hy3_stream *hy3_cuda_stream(struct hy3_stream *stream);
hy3_status hy3_cuda_scratch(struct hy3_stream *stream, enum hy3_cuda_slot slot, size_t bytes,
                            void **out);
/* Host data to a slot of device memory, stream-ordered; `data` may go as soon as this returns. */
hy3_status hy3_cuda_upload(struct hy3_stream *stream, enum hy3_cuda_slot slot, const void *data,
                           size_t bytes, void **out);
/* sum [columns] += the rows of x [rows,columns], in an order that depends on `rows` alone. */
hy3_status hy3_cuda_add_rows(struct hy3_stream *stream, int64_t rows, int64_t columns,
                             const float *x, float *sum);
/* The last collective work that the device was asked for: waits for the device are reported under
 * it. */
void hy3_cuda_note_phase(const char *phase);
/* Mean rows of a group from which on gemm.cu uses several streams; a constant, but for
 * tests/gpu/bench.cu. */
extern int64_t hy3_cuda_grouped_rows;
/* What gemm.cu keeps in a stream. */
void hy3_cuda_close_blas(struct hy3_stream *stream);

extern const struct hy3_device hy3_cuda_device;

#define X(op) hy3_status hy3_cuda_##op(struct hy3_stream *, const struct hy3_##op *);
HY3_OPS(X)
#undef X
#define X(op)                                                                         \
    hy3_status hy3_cuda_##op##_forward(struct hy3_stream *, const struct hy3_##op *); \
    hy3_status hy3_cuda_##op##_backward(struct hy3_stream *, const struct hy3_##op *);
HY3_PAIRS(X)
#undef X

/* ---- elements ---- */

typedef __nv_bfloat16 bf16;

HY3_DEVICE float to_float(float x)
{
    return x;
}

HY3_DEVICE float to_float(bf16 x)
{
    return __bfloat162float(x);
}

HY3_DEVICE void from_float(float x, float *y)
{
    *y = x;
}

HY3_DEVICE void from_float(float x, bf16 *y)
{
    *y = __float2bfloat16_rn(x);
}

/* N neighbouring elements, moved as one when N is more than 1. */
template <class T, int N> struct alignas(N * sizeof(T)) pack {
    T value[N];
};

template <int N, class T> HY3_DEVICE pack<T, N> load_pack(const T *from)
{
    return *(const pack<T, N> *)from;
}

template <class T, int N> HY3_DEVICE void load(float (&out)[N], const T *from)
{
    pack<T, N> p = load_pack<N>(from);

    HY3_UNROLL
    for (int i = 0; i < N; i++)
        out[i] = to_float(p.value[i]);
}

template <class T, int N> HY3_DEVICE void store_pack(T *to, const pack<T, N> &p)
{
    if constexpr (sizeof p == 16)
        hy3_store16(to, &p);
    else if constexpr (sizeof p == 8)
        hy3_store8(to, &p);
    else
        *(pack<T, N> *)to = p;
}

/* As store_pack, of what does not stay in the caches until it is read. */
template <class T, int N> HY3_DEVICE void store_pack_once(T *to, const pack<T, N> &p)
{
    if constexpr (sizeof p == 16)
        hy3_store16_once(to, &p);
    else
        *(pack<T, N> *)to = p;
}

template <class T, int N> HY3_DEVICE void store(T *to, const float (&x)[N])
{
    pack<T, N> p;

    HY3_UNROLL
    for (int i = 0; i < N; i++)
        from_float(x[i], &p.value[i]);
    store_pack(to, p);
}

/* Elements moved as one: 16 bytes of T if every row of `width` elements at these addresses allows
 * it. */
template <class T>
static inline bool is_wide(int64_t width, const void *a, const void *b = nullptr,
                           const void *c = nullptr, const void *d = nullptr)
{
    return width % (16 / (int64_t)sizeof(T)) == 0 &&
           (((uintptr_t)a | (uintptr_t)b | (uintptr_t)c | (uintptr_t)d) & 15) == 0;
}

/* sum[i] += a[i] b[i] scale; sum is shared memory in which these elements are this thread's
 * alone. */
template <int N>
HY3_DEVICE void add_products(float *sum, const float (&a)[N], const float (&b)[N], float scale)
{
    pack<float, N> p = load_pack<N>((const float *)sum);

    HY3_UNROLL
    for (int i = 0; i < N; i++)
        p.value[i] += a[i] * b[i] * scale;
    *(pack<float, N> *)sum = p;
}

/* N elements of a row from a column on, those before its end; 0 beyond. As one where `wide`: the
 * end is then a multiple of N, and what lies beyond reads the row's first instead, so that no
 * branch parts this load from others. */
template <bool wide, class T, int N>
HY3_DEVICE void load_before(float (&out)[N], const T *row, int64_t column, int64_t end)
{
    if (wide)
        load(out, row + (column < end ? column : 0));
    HY3_UNROLL
    for (int i = 0; i < N; i++) {
        if (column + i >= end)
            out[i] = 0;
        else if (!wide)
            out[i] = to_float(row[column + i]);
    }
}

template <bool wide, class T, int N>
HY3_DEVICE void store_before(T *row, const float (&x)[N], int64_t column, int64_t end)
{
    HY3_UNROLL
    for (int i = 0; i < N; i++) {
        if (!wide && column + i < end)
            from_float(x[i], &row[column + i]);
    }
    if (wide && column < end)
        store(row + column, x);
}

HY3_DEVICE float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

HY3_DEVICE float warp_sum(float x)
{
    for (int distance = 16; distance > 0; distance /= 2)
        x += __shfl_xor_sync(0xffffffffu, x, distance);
    return x;
}

HY3_DEVICE float warp_max(float x)
{
    for (int distance = 16; distance > 0; distance /= 2)
        x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, distance));
    return x;
}

/* Sum over the block, the same in every thread; red [33] is shared. Ends with a barrier, so red may
 * be used again. */
HY3_DEVICE float block_sum(float x, float *red)
{
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;

    if (warps == 1)
        return warp_sum(x);
    x = warp_sum(x);
    if (lane == 0)
        red[warp] = x;
    __syncthreads();
    if (warp == 0) {
        float sum = warp_sum(lane < warps ? red[lane] : 0.0f);

        if (lane == 0)
            red[32] = sum;
    }
    __syncthreads();
    x = red[32];
    __syncthreads();
    return x;
}

/* As block_sum, of the maximum. */
HY3_DEVICE float block_max(float x, float *red)
{
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;

    if (warps == 1)
        return warp_max(x);
    x = warp_max(x);
    if (lane == 0)
        red[warp] = x;
    __syncthreads();
    if (warp == 0) {
        float most = warp_max(lane < warps ? red[lane] : -INFINITY);

        if (lane == 0)
            red[32] = most;
    }
    __syncthreads();
    x = red[32];
    __syncthreads();
    return x;
}

static inline unsigned blocks_for(int64_t work, int64_t each)
{
    return (unsigned)((work + each - 1) / each);
}

/* Threads for a row: whole warps, at most `most`, no more than there is work. */
static inline unsigned threads_for(int64_t work, unsigned most = 256)
{
    int64_t warps = (work + 31) / 32;

    return warps < 1 ? 32 : warps * 32 > most ? most : (unsigned)warps * 32;
}

/* f(T(), width) with the C++ type of a dtype: HY3_BY_TYPE(a->dtype, T, ...). */
#define HY3_BY_TYPE(dtype, T, ...) \
    do {                           \
        if ((dtype) == HY3_FP32) { \
            typedef float T;       \
            __VA_ARGS__;           \
        } else {                   \
            typedef bf16 T;        \
            __VA_ARGS__;           \
        }                          \
    } while (0)

#endif
