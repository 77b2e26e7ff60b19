/* SPDX-License-Identifier: Apache-2.0 */
/* launch.h - one kernel source, two builds: by nvcc for the device, and by g++, for tests only, for
 * an emulated GPU (cuda/emulation/).
 *
 * Rules that make both possible: kernels are launched with HY3_LAUNCH, shared memory is declared
 * with HY3_SHARED or HY3_DYNAMIC_SHARED, and PTX and what the emulation lacks are only in the
 * wrappers below. Everything else is ordinary CUDA. */
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <math.h>
#include <stdint.h>

#ifdef __CUDACC__

#    define HY3_UNROLL _Pragma("unroll")
#    define HY3_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
        (kernel)<<<(grid), (block), (shared_bytes), (stream)>>>(__VA_ARGS__)
#    define HY3_DYNAMIC_SHARED(name)           extern __shared__ __align__(128) unsigned char name[]
#    define HY3_SHARED(type, name, dimensions) __shared__ type name dimensions
#    define HY3_DEVICE                         __device__ __forceinline__

/* c += a b, a [16,16] row-major, b [16,8] column-major, in the fragments of PTX ISA 9.7.14.5.8
 * (m16n8k16, .bf16). */
HY3_DEVICE void hy3_mma_m16n8k16_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four 8x8 matrices of 16-bit elements; lane l names row l % 8 of matrix l / 8. PTX ISA 9.7.14.5.15
 * (ldmatrix). */
HY3_DEVICE void hy3_ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

HY3_DEVICE void hy3_ldmatrix_x4_trans(uint32_t (&r)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"((uint32_t)__cvta_generic_to_shared(row))
                 : "memory");
}

/* 16 or 8 bytes to global memory; always one instruction. */
HY3_DEVICE void hy3_store16(void *to, const void *from)
{
    __stwb((uint4 *)to, *(const uint4 *)from);
}

HY3_DEVICE void hy3_store8(void *to, const void *from)
{
    __stwb((uint2 *)to, *(const uint2 *)from);
}

/* 16 bytes that are not read again soon: they evict nothing else from the caches. */
HY3_DEVICE void hy3_store16_once(void *to, const void *from)
{
    __stcs((uint4 *)to, *(const uint4 *)from);
}

/* 16 bytes from global to shared memory, both aligned to 16. PTX ISA 9.7.9.25.3 (cp.async). */
HY3_DEVICE void hy3_cp_async16(void *shared, const void *global)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                     (uint32_t)__cvta_generic_to_shared(shared)),
                 "l"(global)
                 : "memory");
}

HY3_DEVICE void hy3_cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* All but the newest N groups of this thread have arrived. */
template <int N> HY3_DEVICE void hy3_cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

/* ---- warpgroup products of sm_90a: 128 threads, PTX ISA 9.7.15 (wgmma); not called elsewhere
 * ---- */

#    ifdef __CUDA_ARCH_FEAT_SM90_ALL
#        define HY3_HAS_WGMMA 1
#    else
#        define HY3_HAS_WGMMA 0
#    endif

/* A tile of rows of 128 bytes with their 16-byte chunks swizzled by the row (128-byte swizzle, PTX
 * ISA 9.7.15.5.1): 8 rows are 1024 bytes, and `leading` bytes lie between tiles beside each
 * other. */
HY3_DEVICE uint64_t hy3_wgmma_tile(const void *start, int leading)
{
    uint64_t address = (uint64_t)__cvta_generic_to_shared(start);

    return (address & 0x3ffff) >> 4 | (uint64_t)(leading >> 4) << 16 | (uint64_t)(1024 >> 4) << 32 |
           (uint64_t)1 << 62;
}

#    define HY3_QUAD(c) "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
#    define HY3_QUADS8(c, i)                                                        \
        HY3_QUAD(c[i]), HY3_QUAD(c[i + 1]), HY3_QUAD(c[i + 2]), HY3_QUAD(c[i + 3]), \
            HY3_QUAD(c[i + 4]), HY3_QUAD(c[i + 5]), HY3_QUAD(c[i + 6]), HY3_QUAD(c[i + 7])
#    define HY3_REGISTERS32                                                              \
        "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21," \
        "%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#    define HY3_REGISTERS64                                                             \
        HY3_REGISTERS32                                                                 \
        ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50," \
        "%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"

/* c [64,N] = or += a [64,16] b [N,16]^T: both K-major, rows as in hy3_wgmma_tile. In flight until
 * hy3_wgmma_wait. */
template <int N>
HY3_DEVICE void hy3_wgmma_ss(float (&c)[N / 8][4], const void *a, const void *b, bool accumulate)
{
    static_assert(N == 64 || N == 128, "widths that are written out");
#    if HY3_HAS_WGMMA
    uint64_t a_tile = hy3_wgmma_tile(a, 16), b_tile = hy3_wgmma_tile(b, 16);

    if constexpr (N == 64)
        asm volatile(
            "{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
            "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" HY3_REGISTERS32
            "}, %32, %33, p, 1, 1, 0, 0;\n}"
            : HY3_QUADS8(c, 0)
            : "l"(a_tile), "l"(b_tile), "r"((int)accumulate));
    else
        asm volatile(
            "{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
            "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" HY3_REGISTERS64
            "}, %64, %65, p, 1, 1, 0, 0;\n}"
            : HY3_QUADS8(c, 0), HY3_QUADS8(c, 8)
            : "l"(a_tile), "l"(b_tile), "r"((int)accumulate));
#    endif
}

/* c [64,N] += a [64,16] b [16,N]: a in the fragments of m16n8k16, a warp 16 rows; b N-major,
 * columns beyond 64 `leading` bytes on. */
template <int N>
HY3_DEVICE void hy3_wgmma_rs(float (&c)[N / 8][4], const uint32_t (&a)[4], const void *b,
                             int leading)
{
    static_assert(N == 64 || N == 128, "widths that are written out");
#    if HY3_HAS_WGMMA
    uint64_t b_tile = hy3_wgmma_tile(b, leading);

    if constexpr (N == 64)
        asm volatile("wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {" HY3_REGISTERS32
                     "}, {%32,%33,%34,%35}, %36, 1, 1, 1, 1;"
                     : HY3_QUADS8(c, 0)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b_tile));
    else
        asm volatile("wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {" HY3_REGISTERS64
                     "}, {%64,%65,%66,%67}, %68, 1, 1, 1, 1;"
                     : HY3_QUADS8(c, 0), HY3_QUADS8(c, 8)
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b_tile));
#    endif
}

/* Before the first of a series of products: makes registers written so far visible to them. */
HY3_DEVICE void hy3_wgmma_begin()
{
#    if HY3_HAS_WGMMA
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#    endif
}

HY3_DEVICE void hy3_wgmma_commit()
{
#    if HY3_HAS_WGMMA
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
#    endif
}

/* All but the newest N groups are done; c may be read from here on. */
template <int N, int T> HY3_DEVICE void hy3_wgmma_wait(float (&c)[T][4])
{
#    if HY3_HAS_WGMMA
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
    HY3_UNROLL
    for (int i = 0; i < T; i++)
        asm volatile("" : HY3_QUAD(c[i])::"memory"); /* no use of c is moved up */
#    endif
}

/* Makes what this thread wrote to shared memory visible to products that begin after a barrier.
 * PTX ISA 9.7.13.4 (fence.proxy). */
HY3_DEVICE void hy3_wgmma_publish()
{
#    if HY3_HAS_WGMMA
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#    endif
}

#else
#    include "cuda/emulation/launch.h"

HY3_DEVICE void hy3_store16(void *to, const void *from)
{
    __builtin_memcpy(__builtin_assume_aligned(to, 16), from, 16);
}

HY3_DEVICE void hy3_store8(void *to, const void *from)
{
    __builtin_memcpy(__builtin_assume_aligned(to, 8), from, 8);
}

HY3_DEVICE void hy3_store16_once(void *to, const void *from)
{
    hy3_store16(to, from);
}
#endif
