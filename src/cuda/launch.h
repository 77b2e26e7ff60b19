/* launch.h - one kernel source, two builds: nvcc makes device code of it, g++ a program on the CPU (emu/).
 *
 * Rules that make both possible: kernels are launched with HY3_LAUNCH, shared memory is declared with HY3_SHARED or
 * HY3_DYNAMIC_SHARED, and PTX stands in the wrappers below alone. Everything else is ordinary CUDA. */
#ifndef HY3_CUDA_LAUNCH_H
#define HY3_CUDA_LAUNCH_H

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

/* c += a b, a [16,16] row-major, b [16,8] column-major, in the fragments of PTX ISA 9.7.14.5.8 (m16n8k16, .bf16). */
HY3_DEVICE void hy3_mma_m16n8k16_bf16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Four 8x8 matrices of 16-bit elements; lane l names row l % 8 of matrix l / 8. PTX ISA 9.7.14.5.15 (ldmatrix). */
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

#else
#    include "cuda/emu/launch.h"
#endif

#endif
