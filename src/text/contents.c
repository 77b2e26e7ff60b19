/* SPDX-License-Identifier: Apache-2.0 */
/* contents.c - a binary search: a text may have a million of them. */
#include "text/contents.h"

const struct hy3_content *hy3_contents_find(const struct hy3_contents *contents, size_t first,
                                            size_t end)
{
    size_t low = 0, high = contents->count;

    while (low < high) { /* the first that ends behind `first` */
        size_t middle = low + (high - low) / 2;

        if (contents->items[middle].end <= first)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == contents->count || contents->items[low].first >= end)
        return NULL;
    return &contents->items[low];
}
