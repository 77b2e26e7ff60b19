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

/* Text of an asynchronous NCCL error, or NULL. */
const char *hy3_cuda_trouble(void);
/* Aborts all NCCL communicators of this process: a peer has vanished. */
void hy3_cuda_abort(void);
