/* SPDX-License-Identifier: Apache-2.0 */
/* size.h - bytes for people to read. */
#pragma once

#include <stdio.h>

enum { HY3_SIZE_TEXT = 24 }; /* bytes of a size as text */

/* "97.4 GB", "3.2 MB", in `out`, which is returned. */
static inline const char *hy3_size_text(double bytes, char out[HY3_SIZE_TEXT])
{
    const char *unit = bytes >= 1e9 || bytes == 0 ? "GB" : bytes >= 1e5 ? "MB" : "kB";

    snprintf(out, HY3_SIZE_TEXT, "%.1f %s",
             (*unit == 'G'   ? 1e-9
              : *unit == 'M' ? 1e-6
                             : 1e-3) *
                 bytes,
             unit);
    return out;
}
