/* SPDX-License-Identifier: Apache-2.0 */
/* text.h - a growing text. */
#pragma once

#include "base/error.h"

struct hy3_text { /* owned by the caller (hy3_free(text.data)); not NUL-terminated */
    char *data;
    size_t size, capacity;
};

/* Local. Appends `size` bytes. */
hy3_status hy3_text_append(struct hy3_text *out, const char *bytes, size_t size);
