/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_safetensors.c - any bytes as a shard: refused or read, never a crash. */
#include "base/memory.h"
#include "ckpt/hf/names.h"
#include "ckpt/hf/safetensors.h"

#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads every tensor of a shard that was accepted, as far as memory allows. */
static void read_all(const struct hy3_shard *shard)
{
    for (int i = 0; i < hy3_shard_count(shard); i++) {
        const struct hy3_shard_tensor *t = hy3_shard_tensor(shard, i);
        struct hy3_name name;
        void *values;

        hy3_name_parse(t->name, &name);
        if (hy3_shard_find(shard, t->name) != t)
            abort();
        if (hy3_alloc(&values, (size_t)t->bytes, 2) != HY3_OK)
            continue;
        if (t->is_float && hy3_shard_read(shard, t, (struct hy3_span){0, t->count}, values,
                                          t->dtype == HY3_FP32 ? HY3_BF16 : HY3_FP32) != HY3_OK)
            abort();
        if (hy3_shard_read_raw(shard, t, 0, t->bytes, values) != HY3_OK)
            abort();
        hy3_free(values);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hy3_shard *shard = NULL;
    char path[64];
    int fd = memfd_create("shard", MFD_CLOEXEC);

    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (fd >= 0 && write(fd, data, size) == (ssize_t)size && hy3_shard_open(path, &shard) == HY3_OK)
        read_all(shard);
    hy3_shard_close(shard);
    close(fd);
    return 0;
}
