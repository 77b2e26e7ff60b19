/* SPDX-License-Identifier: Apache-2.0 */
/* launch.h - the emulated half of cuda/launch.h: CUDA's device functions, and launches, on the CPU.
 *
 * A CUDA thread is a fiber; a warp operation waits for the lanes that its mask names; shared memory
 * is new, and full of NaN, for each block. fibers.cpp runs the kernels, runtime.cpp replaces the
 * CUDA runtime. */
#pragma once

#include "cuda/emulation/emu.h"

#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#define HY3_UNROLL
#define HY3_DEVICE static inline
#undef __shared__
/* each block gets fresh memory, so a plain __shared__ must not compile */
#define __shared__ use_HY3_SHARED
#define HY3_SHARED(type, name, dimensions) \
    typedef type name##_t dimensions;      \
    static char name##_key;                \
    name##_t &name = *(name##_t *)hy3_emu_shared(&name##_key, sizeof(name##_t))
#define HY3_DYNAMIC_SHARED(name) unsigned char *name = (unsigned char *)hy3_emu_dynamic_shared
#undef __launch_bounds__
#define __launch_bounds__(...)
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
extern void *hy3_emu_dynamic_shared;

static inline unsigned hy3_emu_mask(unsigned mask = 0xffffffffu)
{
    return mask;
}

#define __syncthreads() hy3_emu_barrier(__FILE__, __LINE__)
#define __syncwarp(...) \
    hy3_emu_warp(HY3_WARP_SYNC, __FILE__, __LINE__, hy3_emu_mask(__VA_ARGS__), nullptr)

template <class T>
static inline T hy3_emu_shuffle(int kind, const char *file, int line, unsigned mask, T value,
                                int arg, int width = 32)
{
    static_assert(sizeof(T) <= 8, "type of a shuffle");
    hy3_emu_shuffle_slot slot = {0, kind, arg, width};

    __builtin_memcpy(&slot.value, &value, sizeof(T));
    hy3_emu_warp(HY3_WARP_SHUFFLE, file, line, mask, &slot);
    __builtin_memcpy(&value, &slot.value, sizeof(T));
    return value;
}

#define __shfl_sync(...)      hy3_emu_shuffle(0, __FILE__, __LINE__, __VA_ARGS__)
#define __shfl_up_sync(...)   hy3_emu_shuffle(1, __FILE__, __LINE__, __VA_ARGS__)
#define __shfl_down_sync(...) hy3_emu_shuffle(2, __FILE__, __LINE__, __VA_ARGS__)
#define __shfl_xor_sync(...)  hy3_emu_shuffle(3, __FILE__, __LINE__, __VA_ARGS__)

static inline unsigned hy3_emu_ballot(const char *file, int line, unsigned mask, int predicate)
{
    hy3_emu_vote_slot slot = {predicate, 0};

    hy3_emu_warp(HY3_WARP_VOTE, file, line, mask, &slot);
    return slot.out;
}

#define __ballot_sync(mask, p) hy3_emu_ballot(__FILE__, __LINE__, mask, p)
#define __any_sync(mask, p)    (hy3_emu_ballot(__FILE__, __LINE__, mask, p) != 0)
#define __all_sync(mask, p)    (hy3_emu_ballot(__FILE__, __LINE__, mask, !(p)) == 0)

static inline void hy3_emu_mma(const char *file, int line, float (&c)[4], const uint32_t (&a)[4],
                               const uint32_t (&b)[2])
{
    hy3_emu_mma_slot slot = {c, a, b};

    hy3_emu_warp(HY3_WARP_MMA, file, line, 0xffffffffu, &slot);
}

#define hy3_mma_m16n8k16_bf16(...) hy3_emu_mma(__FILE__, __LINE__, __VA_ARGS__)

static inline void hy3_emu_ldmatrix(const char *file, int line, int trans, uint32_t (&r)[4],
                                    const void *row)
{
    hy3_emu_ldmatrix_slot slot;

    /* the lane that names a row reads it itself, so the sanitizers see the access */
    __builtin_memcpy(slot.row, __builtin_assume_aligned(row, 16), 16);
    slot.address = row;
    slot.out = r;
    slot.trans = trans;
    hy3_emu_warp(HY3_WARP_LDMATRIX, file, line, 0xffffffffu, &slot);
}

#define hy3_ldmatrix_x4(...)       hy3_emu_ldmatrix(__FILE__, __LINE__, 0, __VA_ARGS__)
#define hy3_ldmatrix_x4_trans(...) hy3_emu_ldmatrix(__FILE__, __LINE__, 1, __VA_ARGS__)

static inline void hy3_emu_copy16(void *shared, const void *global)
{
    for (int i = 0; i < 4; i++)
        ((uint32_t *)shared)[i] = ((const uint32_t *)global)[i];
}

HY3_DEVICE void hy3_cp_async16(void *shared, const void *global)
{
    hy3_emu_cp_async(shared, global, hy3_emu_copy16);
}

HY3_DEVICE void hy3_cp_async_commit()
{
    hy3_emu_cp_commit();
}

template <int N> HY3_DEVICE void hy3_cp_async_wait()
{
    hy3_emu_cp_wait(N);
}

/* ---- warpgroup products: every lane computes its own results, so the sanitizers see all
 * reads ---- */

#define HY3_HAS_WGMMA 1

/* Element k of a row, or of a column: bytes from the start of a tile, swizzled as hy3_wgmma_tile
 * says. */
static inline float hy3_emu_swizzled(const void *start, int bytes)
{
    uintptr_t at = (uintptr_t)start + (uintptr_t)bytes;

    return __bfloat162float(*(const __nv_bfloat16 *)(at ^ (at >> 7 & 7) << 4));
}

static inline int hy3_emu_row(int row)
{
    return row / 8 * 1024 + row % 8 * 128;
}

template <int N>
HY3_DEVICE void hy3_wgmma_ss(float (&c)[N / 8][4], const void *a, const void *b, bool accumulate)
{
    int lane = threadIdx.x & 31, row0 = (int)(threadIdx.x >> 5 & 3) * 16 + (lane >> 2);

    __syncwarp();
    for (int n = 0; n < N / 8; n++)
        for (int e = 0; e < 4; e++) {
            int row = row0 + (e >> 1) * 8, column = n * 8 + (lane & 3) * 2 + (e & 1);
            float sum = accumulate ? c[n][e] : 0;

            for (int k = 0; k < 16; k++)
                sum += hy3_emu_swizzled(a, hy3_emu_row(row) + 2 * k) *
                       hy3_emu_swizzled(b, hy3_emu_row(column) + 2 * k);
            c[n][e] = sum;
        }
}

template <int N>
HY3_DEVICE void hy3_wgmma_rs(float (&c)[N / 8][4], const uint32_t (&a)[4], const void *b,
                             int leading)
{
    int lane = threadIdx.x & 31;
    float rows[2][16]; /* of a: this lane's, and 8 below */

    for (int i = 0; i < 16; i++) { /* word i / 4 of lane i % 4 of the four with the same rows */
        uint32_t word = __shfl_sync(0xffffffffu, a[i >> 2], (lane & ~3) + (i & 3));
        int k = (i >> 3) * 8 + (i & 3) * 2;

        rows[i >> 2 & 1][k] = __bfloat162float(__ushort_as_bfloat16((unsigned short)word));
        rows[i >> 2 & 1][k + 1] =
            __bfloat162float(__ushort_as_bfloat16((unsigned short)(word >> 16)));
    }
    for (int n = 0; n < N / 8; n++)
        for (int e = 0; e < 4; e++) {
            int column = n * 8 + (lane & 3) * 2 + (e & 1);

            for (int k = 0; k < 16; k++)
                c[n][e] +=
                    rows[e >> 1][k] *
                    hy3_emu_swizzled(b, column / 64 * leading + column % 64 * 2 + hy3_emu_row(k));
        }
}

HY3_DEVICE void hy3_wgmma_begin()
{
}

HY3_DEVICE void hy3_wgmma_commit()
{
}

template <int N, int T> HY3_DEVICE void hy3_wgmma_wait(float (&)[T][4])
{
    __syncwarp();
}

HY3_DEVICE void hy3_wgmma_publish()
{
}

template <class T> static inline T atomicAdd(T *p, T value)
{
    if constexpr (std::is_integral<T>::value) {
        return __atomic_fetch_add(p, value, __ATOMIC_RELAXED);
    } else {
        T old, sum;

        __atomic_load(p, &old, __ATOMIC_RELAXED);
        do
            sum = old + value;
        while (!__atomic_compare_exchange(p, &old, &sum, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
        return old;
    }
}

static inline uint32_t __float_as_uint(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float __uint_as_float(uint32_t bits)
{
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline float __fmul_rn(float a, float b)
{
    return a * b;
}

static inline float __fadd_rn(float a, float b)
{
    return a + b;
}

static inline float __fsub_rn(float a, float b)
{
    return a - b;
}

static inline float rsqrtf(float x)
{
    return 1.0f / sqrtf(x);
}

static inline void sincospi(double x, double *sine, double *cosine)
{
    sincos(x * 3.14159265358979323846, sine, cosine);
}

#define __expf(x) expf(x) /* glibc declares the name, so a macro */

static inline int __ffs(int x)
{
    return __builtin_ffs(x);
}

static inline int __popc(unsigned x)
{
    return __builtin_popcount(x);
}

template <class T> static inline T __ldg(const T *p)
{
    return *p;
}

/* ---- launches: pointers among the arguments, and in structs among them, are checked ---- */

/* Initializes any field of a struct, and records where the pointers are. */
struct hy3_emu_field {
    size_t *end;
    std::vector<size_t> *pointers;

    template <class T> operator T() const
    {
        *end = (*end + alignof(T) - 1) / alignof(T) * alignof(T);
        if (std::is_pointer<T>::value)
            pointers->push_back(*end);
        *end += sizeof(T);
        return T();
    }
};

template <class T, class... F> constexpr size_t hy3_emu_fields(long)
{
    return sizeof...(F) - 1;
}

template <class T, class... F, class = decltype(T{std::declval<F>()...})>
constexpr size_t hy3_emu_fields(int)
{
    return hy3_emu_fields<T, F..., hy3_emu_field>(0);
}

/* The offsets of a struct's pointers. */
template <class T, size_t... I> std::vector<size_t> hy3_emu_pointers(std::index_sequence<I...>)
{
    size_t end = 0;
    std::vector<size_t> pointers;
    const hy3_emu_field field = {&end, &pointers};

    (void)T{((void)I, field)...};
    return pointers;
}

template <class T>
static inline void hy3_emu_check(const char *kernel, int index, const T &argument)
{
    if constexpr (std::is_pointer<T>::value)
        hy3_emu_check_pointer(kernel, index, (const void *)argument);
    if constexpr (std::is_class<T>::value)
        for (size_t at : hy3_emu_pointers<T>(std::make_index_sequence<hy3_emu_fields<T>(0)>()))
            hy3_emu_check_pointer(kernel, index, *(void *const *)((const char *)&argument + at));
}

template <class... P, class... A>
void hy3_emu_launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
                    cudaStream_t stream, A... a)
{
    std::tuple<P...> arguments(a...);
    int index = 0;

    if (!hy3_emu_may_launch(name, grid, block, shared, stream))
        return;
    std::apply([&](const auto &...value) { (hy3_emu_check(name, index++, value), ...); },
               arguments);
    hy3_emu_enqueue(stream, [=] {
        hy3_emu_run(name, grid, block, shared, [=] { std::apply(kernel, arguments); });
    });
}

#define HY3_LAUNCH(kernel, grid, block, shared, stream, ...) \
    hy3_emu_launch(#kernel, kernel, dim3(grid), dim3(block), shared, stream, __VA_ARGS__)
