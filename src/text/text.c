/* SPDX-License-Identifier: Apache-2.0 */
/* text.c - appends to a text. */
#include "text/text.h"

#include "base/memory.h"

hy3_status hy3_text_append(struct hy3_text *out, const char *bytes, size_t size)
{
    if (size == 0)
        return HY3_OK;
    if (size > out->capacity - out->size)
        HY3_TRY(hy3_grow(&out->data, &out->capacity, out->size + size, 1));
    memcpy(out->data + out->size, bytes, size);
    out->size += size;
    return HY3_OK;
}
