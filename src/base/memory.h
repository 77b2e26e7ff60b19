/* SPDX-License-Identifier: Apache-2.0 */
/* memory.h - host memory: checked allocation.
 *
 * Allocation returns a status and counts its calls, so that a test can make the n-th one fail.
 * Device memory, and the workspace of a step, come from the backend (backend/backend.h). */
#pragma once

#include "base/error.h"

/* Local. `count * size` zeroed bytes, 64-byte aligned; *out is NULL for zero bytes. `out` is the
 * address of a pointer of any type. Errors: HY3_ENOMEM, also when the product overflows. The caller
 * owns *out (hy3_free). */
hy3_status hy3_alloc(void *out, size_t count, size_t size);

/* Local. Grows the array whose address is `array` (*array from hy3_alloc or NULL) to hold at least
 * `need` elements of `size` bytes, at least doubling *capacity; old content is kept, new content is
 * zero.
 * Errors: HY3_ENOMEM, the old array is then untouched. */
hy3_status hy3_grow(void *array, size_t *capacity, size_t need, size_t size);

/* Local. A copy of `text`, owned by the caller (hy3_free). */
hy3_status hy3_strdup(const char *text, char **out);

void hy3_free(void *memory); /* NULL is fine */

/* The value of the variable `pointer`, which becomes NULL: what it pointed to has a new owner. */
#define HY3_TAKE(pointer)                      \
    ({                                         \
        __typeof__(pointer) taken = (pointer); \
        (pointer) = NULL;                      \
        taken;                                 \
    })

/* Local. Bytes of memory that this process has resident now, and the most it had; 0 where the
 * system does not say. */
size_t hy3_memory_resident(void);
size_t hy3_memory_peak(void);

/* Local. Whether `bytes` of address space could still be reserved: libraries that get none end the
 * program where it stands, so this is asked first. Errors: HY3_ENOMEM. */
hy3_status hy3_memory_room(size_t bytes);

/* Test only: the n-th allocation from now fails (n = 1: the next one); 0 switches this off. */
void hy3_alloc_fail_at(int64_t n);
