/* SPDX-License-Identifier: Apache-2.0 */
/* table.cu - the table of the GPU backend, and the entry point of the library. */
#define MPICH_SKIP_MPICXX 1
#define OMPI_SKIP_MPICXX  1
#include "cuda/module.h"

#include <mpi.h>

static struct hy3_backend table;

static void fill_in(const struct hy3_module_host *host)
{
    table.name = "cuda";
    table.library = hy3_cuda_library_name();
    table.abi = HY3_BACKEND_ABI;
    table.device = hy3_cuda_device;
    table.collectives = hy3_cuda_collectives;
    table.on_host = host->cpu;
#define X(op) table.kernels.op = hy3_cuda_##op;
    HY3_OPS(X)
#undef X
#define X(op)                                             \
    table.kernels.op##_forward = hy3_cuda_##op##_forward; \
    table.kernels.op##_backward = hy3_cuda_##op##_backward;
    HY3_PAIRS(X)
#undef X
}

extern "C" __attribute__((visibility("default"))) hy3_status hy3_cuda_open(
    const struct hy3_module_host *host, const struct hy3_backend **out)
{
    int devices = 0; /* not written where there is no NVIDIA driver */
    cudaError_t error;

    *out = NULL;
    if (host->abi != HY3_BACKEND_ABI)
        return host->fail(HY3_EDEVICE, __FILE__, __LINE__,
                          "the GPU library is from another version of hy3 (interface %d, not %u)",
                          (int)HY3_BACKEND_ABI, host->abi);
    hy3_cuda_host.fail = host->fail;
    hy3_cuda_host.wait_on = host->wait_on;
    hy3_cuda_host.enter = host->enter;
    hy3_cuda_host.leave = host->leave;
    error = HY3_CUDA_WATCHED("cudaGetDeviceCount", cudaGetDeviceCount(&devices));
    if (error != cudaSuccess || devices == 0)
        return host->fail(HY3_EDEVICE, __FILE__, __LINE__, "no GPU can be used here: %s",
                          error != cudaSuccess ? cudaGetErrorString(error) : "none was found");
    HY3_CUDA_TRY(cudaSetDevice(host->node_rank % devices));
    fill_in(host);
    host->watch(&hy3_cuda_library);
    *out = &table;
    return HY3_OK;
}
