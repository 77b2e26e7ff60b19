/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_index.c - any bytes as a model.safetensors.index.json: refused, or names that stay inside
 * the directory. */
#include "base/file.h"
#include "base/output.h"
#include "ckpt/hf/directory.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A directory in which the shards of the golden index exist, made once where the fuzzer runs. */
static const char *directory(void)
{
    static char path[] = "index-XXXXXX", *made;

    for (int i = 1; !made && i <= 5; i++) {
        char shard[128];

        if (i == 1 && !mkdtemp(path))
            abort();
        snprintf(shard, sizeof shard, "%s/model-%05d-of-00005.safetensors", path, i);
        if (hy3_output_replace(shard, "", 0) != HY3_OK)
            abort();
    }
    return made = path;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hy3_hf_dir *dir = NULL;
    char path[HY3_PATH_MAX];
    FILE *file;
    int shard;

    snprintf(path, sizeof path, "%s/model.safetensors.index.json", directory());
    if (!(file = fopen(path, "w")) || fwrite(data, 1, size, file) != size || fclose(file) != 0)
        abort();
    if (hy3_hf_dir_open(directory(), &dir) != HY3_OK)
        return 0;
    for (int i = 0; i < hy3_hf_dir_tensors(dir); i++) {
        const char *name = hy3_hf_dir_tensor(dir, i, &shard);

        if (hy3_hf_dir_find(dir, name) != i || strchr(hy3_hf_dir_shard_name(dir, shard), '/'))
            abort();
    }
    hy3_hf_dir_close(dir);
    return 0;
}
