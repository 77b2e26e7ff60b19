/* SPDX-License-Identifier: Apache-2.0 */
/* cuda.h - what the files of the CUDA backend share: errors of calls, streams, scratch memory,
 * elements of both dtypes, sums over warps and blocks.
 *
 * C-style CUDA C++: templates for the two dtypes and vector widths, no other C++ features.
 * No MPI here, so that kernels and device build where there is only nvcc (make gpu-check). */
#pragma once

#include "cuda/launch.h"

#include <cublasLt.h>
#include <cublas_v2.h>

#include <math.h>

#define _Noreturn __attribute__((noreturn))
extern "C" {
#include "backend/adamw.h"
#include "backend/indices.h"
#include "backend/kernels.h"
}

/* What this library needs from the program that loads it; set by hy3_cuda_open, or by a test. */
struct hy3_cuda_host {
    hy3_status (*fail)(hy3_status code, const char *file, int line, const char *format, ...);
    /* Returns when is_done says so; the job ends if that takes longer than ddp_timeout. */
    void (*wait_on)(bool (*is_done)(void *context), void *context, const char *phase,
                    const char *whose, bool is_counted);
    /* The program's watchdog looks at what is between the two. */
    void (*enter)(const char *call, const char *file, int line);
    void (*leave)(void);
};
extern struct hy3_cuda_host hy3_cuda_host;

/* Writes an error text that names the call, file and line, and what to do; `memory`: the device is
 * out of memory. */
hy3_status hy3_cuda_failed(const char *call, const char *why, bool memory, const char *file,
                           int line);

template <class T> static inline T hy3_cuda_returned(T result)
{
    hy3_cuda_host.leave();
    return result;
}

/* The result of a call that may not return: the driver may wait for the device, and NCCL for other
 * ranks. The watchdog then ends the job with the call's `name`. */
#define HY3_CUDA_WATCHED(name, call) \
    (hy3_cuda_host.enter(name, __FILE__, __LINE__), hy3_cuda_returned(call))

/* HY3_TRY for calls of CUDA and cuBLAS. */
#define HY3_CUDA_TRY(call)                                                                   \
    do {                                                                                     \
        cudaError_t error_ = HY3_CUDA_WATCHED(#call, call);                                  \
        if (error_ != cudaSuccess)                                                           \
            return hy3_cuda_failed(#call, cudaGetErrorString(error_),                        \
                                   error_ == cudaErrorMemoryAllocation, __FILE__, __LINE__); \
    } while (0)
#define HY3_CUBLAS_TRY(call)                                                                  \
    do {                                                                                      \
        cublasStatus_t error_ = HY3_CUDA_WATCHED(#call, call);                                \
        if (error_ != CUBLAS_STATUS_SUCCESS)                                                  \
            return hy3_cuda_failed(#call, cublasGetStatusString(error_),                      \
                                   error_ == CUBLAS_STATUS_ALLOC_FAILED, __FILE__, __LINE__); \
    } while (0)
/* HY3_LAUNCH, and HY3_TRY for its error. */
#define HY3_CUDA_LAUNCH(kernel, grid, block, shared, stream, ...)                             \
    do {                                                                                      \
        cudaError_t error_;                                                                   \
        hy3_cuda_host.enter("kernel launch", __FILE__, __LINE__); /* the queue may be full */ \
        HY3_LAUNCH(kernel, grid, block, shared, stream, __VA_ARGS__);                         \
        if ((error_ = hy3_cuda_returned(cudaGetLastError())) != cudaSuccess)                  \
            return hy3_cuda_failed("launch of " #kernel, cudaGetErrorString(error_),          \
                                   error_ == cudaErrorMemoryAllocation, __FILE__, __LINE__);  \
    } while (0)

/* In a developer build of the emulated GPU, checks the indices in the field `name` of the arguments
 * `a` before the kernel behind this runs (backend/indices.h). Its kernel gets the names as a
 * number: host pointers are no arguments. */
#if defined HY3_DEVELOPER && !defined __CUDACC__
/* clang-format off */
#    define HY3_CHECKED_INDICES(X)                                                           \
        X(embedding, ids) X(loss, targets) X(permute, position) X(permute, token)            \
        X(rope, positions) X(route_index, ids) X(router, ids) X(router, place)           \
        X(row_dot, to) X(unpermute, position)

/* clang-format on */
enum checked_indices {

#    define X(kernel, name) CHECKED_##kernel##_##name,
    HY3_CHECKED_INDICES(X)
#    undef X
};

static inline __global__ void check_indices_kernel(enum checked_indices which,
                                                   const int32_t *indices, int64_t n, int64_t low,
                                                   int64_t bound)
{
    static const char *const names[][2] = {
#    define X(kernel, name) {#    kernel, #    name},
        HY3_CHECKED_INDICES(X)
#    undef X
    };

    hy3_indices_check(names[which][0], names[which][1], indices, n, low, bound);
}

#    define HY3_CUDA_CHECK_INDICES(stream_, kernel, name, n, low, bound)                  \
        HY3_CUDA_LAUNCH(check_indices_kernel, 1, 1, 0, hy3_cuda_stream(stream_)->stream,  \
                        CHECKED_##kernel##_##name, a->name, (int64_t)(n), (int64_t)(low), \
                        (int64_t)(bound))
#else
#    define HY3_CUDA_CHECK_INDICES(stream_, kernel, name, n, low, bound) ((void)0)
#endif

/* Grow-only device memory for the kernels of a stream: one buffer per slot, valid until the slot's
 * next use. */
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

/* Small host arrays on their way to the device, at most HY3_UPLOADS at a time. */
enum { HY3_UPLOADS = 8 };

struct hy3_cuda_upload {
    void *pinned;
    size_t capacity;
    cudaEvent_t arrived;
};

struct hy3_stream {
    cudaStream_t stream; /* 0: the default stream, which blocking streams synchronize with */

    struct {
        void *memory;
        size_t capacity;
    } scratch[HY3_CUDA_SLOTS];
    struct hy3_cuda_upload uploads[HY3_UPLOADS];
    int next_upload;
    /* created at first use */
    struct hy3_blas *blas;   /* gemm.cu */
    struct hy3_tiles *tiles; /* tiles.cu */
    /* rope.cu: what the frequencies on the device are for */
    double theta;
    int64_t D;
};

/* The stream to work on; NULL is the default one. */
struct hy3_stream *hy3_cuda_stream(struct hy3_stream *stream);
/* Zeroed host memory, released by free(). `out`: a pointer to a pointer, as below. */
hy3_status hy3_cuda_calloc(size_t bytes, void *out);
hy3_status hy3_cuda_scratch(struct hy3_stream *stream, enum hy3_cuda_slot slot, size_t bytes,
                            void *out);
/* Copies host data to a slot of device memory, stream-ordered; `data` is borrowed until return. */
hy3_status hy3_cuda_upload(struct hy3_stream *stream, enum hy3_cuda_slot slot, const void *data,
                           size_t bytes, void *out);
/* sum [columns] += the rows of x [rows,columns], in an order that depends on `rows` alone. */
hy3_status hy3_cuda_add_rows(struct hy3_stream *stream, int64_t rows, int64_t columns,
                             const float *x, float *sum);
/* The collective operation issued last: reported as the phase of later waits for the device. */
void hy3_cuda_note_phase(const char *phase);
/* Mean rows of a group from which on gemm.cu uses several streams; a constant except in
 * tests/gpu/bench.cu. */
extern int64_t hy3_cuda_grouped_rows;
/* Release what a stream holds of gemm.cu and tiles.cu; NULL is fine. */
void hy3_blas_free(struct hy3_blas *blas);
void hy3_tiles_free(struct hy3_tiles *tiles);

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

/* N adjacent elements, loaded and stored by one instruction when N is more than 1. */
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

/* store_pack for data that is evicted from the caches before it is read anyway. */
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

/* Whether rows of `width` elements of T at these addresses can be accessed 16 bytes at a time. */
template <class T>
static inline bool is_wide(int64_t width, const void *a, const void *b = nullptr,
                           const void *c = nullptr, const void *d = nullptr)
{
    return width % (16 / (int64_t)sizeof(T)) == 0 &&
           (((uintptr_t)a | (uintptr_t)b | (uintptr_t)c | (uintptr_t)d) & 15) == 0;
}

/* sum[i] += a[i] b[i] scale, for elements of shared memory that only this thread uses. */
template <int N>
HY3_DEVICE void add_products(float *sum, const float (&a)[N], const float (&b)[N], float scale)
{
    pack<float, N> p = load_pack<N>((const float *)sum);

    HY3_UNROLL
    for (int i = 0; i < N; i++)
        p.value[i] += a[i] * b[i] * scale;
    *(pack<float, N> *)sum = p;
}

/* N elements of a row from `column` on; 0 from `end` on. With `wide` it is one load: `end` is then
 * a multiple of N, and beyond it the row's first elements are read instead, so that no branch
 * separates this load from others. */
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

/* ---- sums and maxima ---- */

enum hy3_fold { HY3_SUM, HY3_MAX };

template <enum hy3_fold how, class T> HY3_DEVICE T warp_fold(T x, int lanes)
{
    for (int distance = lanes / 2; distance > 0; distance /= 2) {
        T other = __shfl_xor_sync(0xffffffffu, x, distance);

        if constexpr (how == HY3_SUM)
            x += other;
        else
            x = fmaxf(x, other);
    }
    return x;
}

/* Sum over the warp, or over each `lanes` adjacent lanes (a power of two); in all of them. */
template <class T> HY3_DEVICE T warp_sum(T x, int lanes = 32)
{
    return warp_fold<HY3_SUM>(x, lanes);
}

HY3_DEVICE float warp_max(float x)
{
    return warp_fold<HY3_MAX>(x, 32);
}

template <enum hy3_fold how, class T> HY3_DEVICE T block_fold(T x, T *red)
{
    int warp = threadIdx.x >> 5, lane = threadIdx.x & 31, warps = blockDim.x >> 5;

    x = warp_fold<how>(x, 32);
    if (warps == 1)
        return x;
    if (lane == 0)
        red[warp] = x;
    __syncthreads();
    if (warp == 0) {
        x = warp_fold<how>(lane < warps ? red[lane] : how == HY3_SUM ? (T)0 : (T)-INFINITY, 32);
        if (lane == 0)
            red[32] = x;
    }
    __syncthreads();
    x = red[32];
    __syncthreads();
    return x;
}

/* Sum over the block, in every thread; red [33] is shared memory. Ends with a barrier, so red may
 * be used again. */
template <class T> HY3_DEVICE T block_sum(T x, T *red)
{
    return block_fold<HY3_SUM>(x, red);
}

HY3_DEVICE float block_max(float x, float *red)
{
    return block_fold<HY3_MAX>(x, red);
}

/* ---- launches ---- */

static inline unsigned blocks_for(int64_t work, int64_t each)
{
    return (unsigned)((work + each - 1) / each);
}

/* Threads of a block: whole warps, at most `most`, no more than there is work. */
static inline unsigned threads_for(int64_t work, unsigned most = 256)
{
    int64_t warps = (work + 31) / 32;

    return warps < 1 ? 32 : warps * 32 > most ? most : (unsigned)warps * 32;
}

/* Statements with T, the C++ type of a dtype. */
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

/* Statements with T and N, the elements of an access: 16 bytes if `wide` (which may use T), else
 * one. */
#define HY3_BY_WIDTH(dtype, T, wide, N, ...)       \
    HY3_BY_TYPE(dtype, T, {                        \
        if (wide) {                                \
            constexpr int N = 16 / (int)sizeof(T); \
            __VA_ARGS__;                           \
        } else {                                   \
            constexpr int N = 1;                   \
            __VA_ARGS__;                           \
        }                                          \
    })
