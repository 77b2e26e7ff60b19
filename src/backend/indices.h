/* SPDX-License-Identifier: Apache-2.0 */
/* indices.h - the indices that kernels read from memory: whoever makes them keeps them in range,
 * and developer builds (configure --enable-developer) check that on the CPU and, in cuda/cuda.h, on
 * the emulated GPU. */
#pragma once

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Local. Ends the program with one line unless each of indices[0..n) is low to bound - 1. */
static inline void hy3_indices_check(const char *kernel, const char *name, const int32_t *indices,
                                     int64_t n, int64_t low, int64_t bound)
{
    for (int64_t i = 0; i < n; i++) {
        if (indices[i] >= low && indices[i] < bound)
            continue;
        fprintf(stderr, "hy3: internal error: kernel %s: %s[%lld] is %d, it must be %lld to %lld\n",
                kernel, name, (long long)i, indices[i], (long long)low, (long long)bound - 1);
        abort();
    }
}

/* In a kernel of the CPU; `name` is a field of the arguments `a`. */
#ifdef HY3_DEVELOPER
#    define HY3_CHECK_INDICES(kernel, name, n, low, bound) \
        hy3_indices_check(#kernel, #name, a->name, (n), (low), (bound))
#else
#    define HY3_CHECK_INDICES(kernel, name, n, low, bound) ((void)0)
#endif
