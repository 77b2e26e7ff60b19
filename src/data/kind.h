/* SPDX-License-Identifier: Apache-2.0 */
/* kind.h - what a data file is, by its first bytes and its name. */
#pragma once

#include "base/error.h"

enum { HY3_KIND_BYTES = 4096 };

enum hy3_data_layout {
    HY3_LAYOUT_LINES,  /* JSON Lines */
    HY3_LAYOUT_VALUES, /* objects one after the other, spread over lines as they like */
    HY3_LAYOUT_ARRAY   /* one JSON array of objects */
};

/* Local. `bytes`: the first HY3_KIND_BYTES of the file, or all if it has fewer. *layout: what it
 * looks like. Errors: HY3_EUSAGE, which names what the file is and what to do. */
hy3_status hy3_kind_check(const char *path, const char *bytes, size_t size,
                          enum hy3_data_layout *layout);
