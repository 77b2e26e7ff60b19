/* SPDX-License-Identifier: Apache-2.0 */
/* contents.h - which stretches of a rendered text are the line's own; the template wrote the
 * others. */
#pragma once

#include "base/error.h"

struct hy3_content {
    size_t first, end; /* bytes of the text */
    int64_t message;   /* whose it is, from 1; 0: of the line's tools */
};

struct hy3_contents { /* ascending, none empty; owned by the caller (hy3_free(items)) */
    struct hy3_content *items;
    size_t count, capacity;
};

/* The first content that shares a byte with [first, end), NULL if none does. */
const struct hy3_content *hy3_contents_find(const struct hy3_contents *contents, size_t first,
                                            size_t end);
