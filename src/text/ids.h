/* SPDX-License-Identifier: Apache-2.0 */
/* ids.h - a growing list of token ids. */
#ifndef HY3_TEXT_IDS_H
#define HY3_TEXT_IDS_H

#include <stddef.h>
#include <stdint.h>

struct hy3_ids { /* owned by the caller (hy3_free(ids.data)) */
    int32_t *data;
    size_t count, capacity;
};

#endif
