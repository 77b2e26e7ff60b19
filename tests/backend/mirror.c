/* SPDX-License-Identifier: Apache-2.0 */
/* mirror.c - arrays and their copies on the device. */
#include "backend/mirror.h"

enum { MOST = 256 };

static struct {
    const struct hy3_device *device;
    const struct hy3_kernels *kernels;

    struct {
        char *host, *copy;
        size_t bytes;
    } arrays[MOST];

    int count;
} mirror;

void hy3_mirror_add(void *data, size_t bytes)
{
    if (mirror.count == MOST)
        HY3_BUG("more than %d arrays", MOST);
    mirror.arrays[mirror.count].host = data;
    mirror.arrays[mirror.count].bytes = bytes;
    mirror.arrays[mirror.count].copy = NULL;
    mirror.count++;
}

void hy3_mirror_forget(void)
{
    while (mirror.count > 0)
        if (mirror.arrays[--mirror.count].copy)
            mirror.device->free(mirror.arrays[mirror.count].copy);
}

/* Every word of the arguments that is the address of an array becomes that of its copy. */
static void redirect(void *arguments, size_t size)
{
    for (size_t at = 0; at + sizeof(char *) <= size; at += sizeof(char *)) {
        char *word;

        memcpy(&word, (char *)arguments + at, sizeof word);
        for (int i = 0; i < mirror.count; i++) {
            uintptr_t first = (uintptr_t)mirror.arrays[i].host;

            size_t bytes = mirror.arrays[i].bytes > 0 ? mirror.arrays[i].bytes : 1;

            if ((uintptr_t)word < first || (uintptr_t)word >= first + bytes)
                continue;
            word = mirror.arrays[i].copy + ((uintptr_t)word - first);
            memcpy((char *)arguments + at, &word, sizeof word);
            break;
        }
    }
}

static hy3_status copy_all(bool back)
{
    for (int i = 0; i < mirror.count; i++) {
        void *copy = mirror.arrays[i].copy;

        if (!copy)
            HY3_TRY(mirror.device->alloc(mirror.arrays[i].bytes > 0 ? mirror.arrays[i].bytes : 1,
                                         &copy));
        mirror.arrays[i].copy = copy;
        HY3_TRY(mirror.device->copy(NULL, back ? mirror.arrays[i].host : copy,
                                    back ? copy : mirror.arrays[i].host, mirror.arrays[i].bytes));
    }
    return mirror.device->synchronize(NULL);
}

#define CALL(op, kernel)                                                                    \
    static hy3_status call_##kernel(struct hy3_stream *stream, const struct hy3_##op *args) \
    {                                                                                       \
        struct hy3_##op moved = *args;                                                      \
                                                                                            \
        HY3_TRY(copy_all(false));                                                           \
        redirect(&moved, sizeof moved);                                                     \
        HY3_TRY(mirror.kernels->kernel(stream, &moved));                                    \
        return copy_all(true);                                                              \
    }
#define X(op) CALL(op, op)
HY3_OPS(X)
#undef X
#define X(op) CALL(op, op##_forward) CALL(op, op##_backward)
HY3_PAIRS(X)
#undef X

const struct hy3_kernels *hy3_mirror(const struct hy3_device *device,
                                     const struct hy3_kernels *kernels)
{
    static const struct hy3_kernels table = {
#define X(op) .op = call_##op,
        HY3_OPS(X)
#undef X
#define X(op) .op##_forward = call_##op##_forward, .op##_backward = call_##op##_backward,
            HY3_PAIRS(X)
#undef X
    };

    mirror.device = device;
    mirror.kernels = kernels;
    return &table;
}
