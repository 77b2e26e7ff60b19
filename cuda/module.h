/* SPDX-License-Identifier: Apache-2.0 */
/* module.h - the part of the CUDA backend that uses MPI: collectives, and the table returned to the
 * program. */
#pragma once

#include "cuda/cuda.h"

extern "C" {
#include "backend/backend.h"
#include "backend/module.h"
}

extern const struct hy3_collectives hy3_cuda_collectives;

/* "NCCL 2.28.9" */
const char *hy3_cuda_library_name(void);
/* How the program's waits look after NCCL. */
extern const struct hy3_wait_library hy3_cuda_library;
