/* SPDX-License-Identifier: Apache-2.0 */
/* plural.h - the end of a counted noun. */
#pragma once

#include <stdint.h>

/* "%lld sample%s" of n and hy3_s(n). */
static inline const char *hy3_s(int64_t count)
{
    return count == 1 ? "" : "s";
}
