/* SPDX-License-Identifier: Apache-2.0 */
/* memory.c - checked allocation. */
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

static int64_t fail_in;

void hy3_alloc_fail_at(int64_t n)
{
    fail_in = n;
}

hy3_status hy3_alloc(void *out, size_t count, size_t size)
{
    hy3_status status = HY3_OK;
    size_t bytes;
    void *memory = NULL;

    if (fail_in > 0 && --fail_in == 0)
        HY3_FAIL_DONE(HY3_ENOMEM, "out of host memory (a test asked for this failure)");
    if (__builtin_mul_overflow(count, size, &bytes) || bytes > SIZE_MAX - 64)
        HY3_FAIL_DONE(HY3_ENOMEM, "cannot allocate %zu elements of %zu bytes", count, size);
    if (bytes > 0) {
        bytes = (bytes + 63) / 64 * 64;
        if (!(memory = aligned_alloc(64, bytes)))
            HY3_FAIL_DONE(HY3_ENOMEM, "cannot allocate %zu bytes of host memory", bytes);
        memset(memory, 0, bytes);
    }
done:
    memcpy(out, &memory, sizeof memory);
    return status;
}

hy3_status hy3_grow(void *array, size_t *capacity, size_t need, size_t size)
{
    void *old, *grown = NULL;
    size_t target = *capacity < 8 ? 8 : *capacity;

    if (need <= *capacity)
        return HY3_OK;
    while (target < need)
        target = target > SIZE_MAX / 2 ? need : 2 * target;
    memcpy(&old, array, sizeof old);
    HY3_TRY(hy3_alloc(&grown, target, size));
    if (*capacity > 0)
        memcpy(grown, old, *capacity * size);
    hy3_free(old);
    memcpy(array, &grown, sizeof grown);
    *capacity = target;
    return HY3_OK;
}

hy3_status hy3_strdup(const char *text, char **out)
{
    size_t size = strlen(text) + 1;
    hy3_status status = hy3_alloc(out, size, 1);

    if (status == HY3_OK)
        memcpy(*out, text, size);
    return status;
}

void hy3_free(void *memory)
{
    free(memory);
}

hy3_status hy3_memory_room(size_t bytes)
{
    const int kind = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    /* cppcheck-suppress invalidFunctionArg ; -1 is what MAP_ANONYMOUS asks for */
    void *space = mmap(NULL, bytes, PROT_READ | PROT_WRITE, kind, -1, 0);

    if (space == MAP_FAILED)
        HY3_FAIL(HY3_ENOMEM,
                 "the address space has less than %.0f MB left for the libraries; raise its limit "
                 "(ulimit -v)",
                 1e-6 * (double)bytes);
    munmap(space, bytes);
    return HY3_OK;
}

size_t hy3_memory_resident(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    char line[128] = "", *resident = NULL;

    if (file && fgets(line, sizeof line, file))
        resident = strchr(line, ' ');
    if (file)
        fclose(file);
    return resident ? strtoull(resident, NULL, 10) * (size_t)sysconf(_SC_PAGESIZE) : 0;
}

size_t hy3_memory_peak(void)
{
    struct rusage usage;

    return getrusage(RUSAGE_SELF, &usage) == 0 ? (size_t)usage.ru_maxrss * 1024 : 0;
}
