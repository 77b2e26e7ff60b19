/* SPDX-License-Identifier: Apache-2.0 */
/* labels.c - which tokens are learned. */
#include "text/labels.h"

#include <string.h>

static size_t find(const int32_t *ids, size_t from, size_t count, int32_t id)
{
    while (from < count && ids[from] != id)
        from++;
    return from;
}

size_t hy3_labels_mark(const int32_t *ids, size_t count, int32_t assistant, int32_t eos,
                       uint8_t *mask)
{
    size_t start = find(ids, 0, count, assistant), end = find(ids, 0, count, eos), labels = 0;

    memset(mask, 0, count);
    while (start < count && end < count) {
        if (start < end)
            memset(mask + start + 1, 1, end - start);
        start = find(ids, start + 1, count, assistant);
        end = find(ids, end + 1, count, eos);
    }
    for (size_t i = 0; i < count; i++)
        labels += mask[i];
    return labels;
}
