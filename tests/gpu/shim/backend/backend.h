/* SPDX-License-Identifier: Apache-2.0 */
/* backend.h - replaces src/backend/backend.h for tests/backend/kernels.c without MPI
 * (tests/gpu/check.sh): there is no CPU table. */
#pragma once

#include "backend/kernels.h"

struct hy3_backend {
    struct hy3_kernels kernels;
};

static inline const struct hy3_backend *hy3_cpu_backend(const char *isa)
{
    (void)isa;
    return NULL;
}
