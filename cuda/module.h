/* SPDX-License-Identifier: Apache-2.0 */
/* module.h - the half of the CUDA backend that knows MPI: collectives, and the table handed to the
 * program. */
#ifndef HY3_CUDA_MODULE_H
#define HY3_CUDA_MODULE_H

#include "cuda/cuda.h"

extern "C" {
#include "backend/backend.h"
#include "backend/module.h"
}

extern const struct hy3_collectives hy3_cuda_collectives;

/* What NCCL complains about, or NULL. */
const char *hy3_cuda_trouble(void);
/* Ends all communication of this process; a peer is gone. */
void hy3_cuda_abort(void);

#endif
