/* SPDX-License-Identifier: Apache-2.0 */
/* occupancy.c - how many blocks of a kernel an SM of an H100 holds, computed by NVIDIA's header
 * without a GPU.
 *   occupancy REGISTERS SHARED_BYTES THREADS
 * Figures of the device: CUDA C++ Programming Guide, table of technical specifications, compute
 * capability 9.0. */
#include <cuda_occupancy.h>
#include <cuda_runtime_api.h>

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    cudaOccDeviceProp device = {0};
    cudaOccFuncAttributes kernel = {0};
    cudaOccDeviceState state = {0};
    cudaOccResult result;
    int threads, blocks;

    if (argc != 4)
        return 2;
    threads = (int)strtol(argv[3], NULL, 10);
    device.computeMajor = 9;
    device.maxThreadsPerBlock = 1024;
    device.maxThreadsPerMultiprocessor = 2048;
    device.regsPerBlock = device.regsPerMultiprocessor = 65536;
    device.warpSize = 32;
    device.sharedMemPerBlock = 48 << 10;
    device.sharedMemPerMultiprocessor = 228 << 10;
    device.sharedMemPerBlockOptin = 227 << 10;
    device.reservedSharedMemPerBlock = 1024;
    device.numSms = 132;
    kernel.maxThreadsPerBlock = 1024;
    kernel.numRegs = (int)strtol(argv[1], NULL, 10);
    kernel.maxDynamicSharedSizeBytes = 227 << 10;
    kernel.partitionedGCConfig = PARTITIONED_GC_OFF;
    kernel.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    state.cacheConfig = CACHE_PREFER_SHARED;
    state.carveoutConfig = SHAREDMEM_CARVEOUT_MAX_SHARED;
    if (cudaOccMaxActiveBlocksPerMultiprocessor(&result, &device, &kernel, &state, threads,
                                                (size_t)strtol(argv[2], NULL, 10)) !=
        CUDA_OCC_SUCCESS)
        return 1;
    blocks = result.activeBlocksPerMultiprocessor;
    printf("%d %d\n", blocks, 100 * blocks * threads / 2048);
    return 0;
}
