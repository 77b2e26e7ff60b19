/* SPDX-License-Identifier: Apache-2.0 */
/* gpu.h - the GPU's table for the kernel tests, if there is one. */
#pragma once

#include "backend/kernels.h"

/* Opens the GPU: here through the library hy3_cuda.so (gpu.c), without MPI in gpu/main.cu (make
 * gpu-check). */
hy3_status hy3_test_gpu(const struct hy3_device **device, const struct hy3_kernels **kernels);
