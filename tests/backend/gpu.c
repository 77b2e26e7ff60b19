/* SPDX-License-Identifier: Apache-2.0 */
/* gpu.c - the GPU's table as a program opens it. */
#include "backend/gpu.h"

#include "backend/backend.h"
#include "support/test.h"

hy3_status hy3_test_gpu(const struct hy3_device **device, const struct hy3_kernels **kernels)
{
    const struct hy3_backend *backend;

    if (!hy3_test_gpu_module())
        HY3_FAIL(HY3_EDEVICE,
                 "the emulated GPU is not built: no CUDA headers (--enable-cuda-emulation)");
    HY3_TRY(hy3_backend_open(MPI_COMM_WORLD, "cuda", &backend));
    *device = &backend->device;
    *kernels = &backend->kernels;
    return HY3_OK;
}
