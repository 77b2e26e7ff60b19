/* SPDX-License-Identifier: Apache-2.0 */
/* backend.h - what tests/backend/kernels.c needs of the real one where there is no MPI
 * (tests/gpu/check.sh): no table of the CPU. */
#ifndef HY3_BACKEND_BACKEND_H
#define HY3_BACKEND_BACKEND_H

#include "backend/kernels.h"

struct hy3_backend {
    struct hy3_kernels kernels;
};

static inline const struct hy3_backend *hy3_cpu_backend(const char *isa)
{
    (void)isa;
    return NULL;
}

#endif
