/* SPDX-License-Identifier: Apache-2.0 */
/* open.cu - the kernels and the device of the GPU backend without MPI and without the programs, for
 * tests/gpu/check.sh. */
#include "cuda/cuda.h"

#include <sched.h>
#include <stdio.h>

extern "C" {
#include "backend/gpu.h"
}

static void wait_on(bool (*is_done)(void *context), void *context, const char *, const char *, bool)
{
    while (!is_done(context))
        sched_yield();
}

static void enter(const char *, const char *, int)
{
}

static void leave(void)
{
}

extern "C" hy3_status hy3_test_gpu(const struct hy3_device **device,
                                   const struct hy3_kernels **kernels)
{
    static struct hy3_kernels table;
    int count = 0;

    hy3_cuda_host.fail = hy3_fail;
    hy3_cuda_host.wait_on = wait_on;
    hy3_cuda_host.enter = enter;
    hy3_cuda_host.leave = leave;
    HY3_CUDA_TRY(cudaGetDeviceCount(&count));
    HY3_CUDA_TRY(cudaSetDevice(0));
#define X(op) table.op = hy3_cuda_##op;
    HY3_OPS(X)
#undef X
#define X(op)                                     \
    table.op##_forward = hy3_cuda_##op##_forward; \
    table.op##_backward = hy3_cuda_##op##_backward;
    HY3_PAIRS(X)
#undef X
    *device = &hy3_cuda_device;
    *kernels = &table;
    return HY3_OK;
}
