/* SPDX-License-Identifier: Apache-2.0 */
/* ids.h - a growing list of token ids. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct hy3_ids { /* owned by the caller (hy3_free(ids.data)) */
    int32_t *data;
    size_t count, capacity;
    /* where it is set before encoding, `at` (hy3_free) tells of each id the byte at which its
     * stretch of text begins: an added token, or what stands between two */
    bool marks_places;
    size_t *at, at_capacity;
};
