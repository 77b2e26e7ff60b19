/* SPDX-License-Identifier: Apache-2.0 */
/* ids.h - a growing list of token ids. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct hy3_ids { /* owned by the caller (hy3_free(ids.data)) */
    int32_t *data;
    size_t count, capacity;
};
