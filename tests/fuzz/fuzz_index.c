/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_index.c - any bytes as a model.safetensors.index.json: refused, or names that stay inside
 * the directory. */
#include "ckpt/hf/directory.h"
#include "fuzz.h"

/* The shards of the golden index, empty and made once. */
static void place_shards(void)
{
    static bool is_made;

    for (int i = 1; !is_made && i <= 5; i++) {
        char name[64], path[HY3_PATH_MAX];

        snprintf(name, sizeof name, "model-%05d-of-00005.safetensors", i);
        fuzz_write(fuzz_path(path, name), "", 0);
    }
    is_made = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hy3_hf_dir *dir = NULL;
    char path[HY3_PATH_MAX];
    int shard;

    place_shards();
    fuzz_write(fuzz_path(path, "model.safetensors.index.json"), data, size);
    if (hy3_hf_dir_open(fuzz_directory(), &dir) != HY3_OK)
        return 0;
    for (int i = 0; i < hy3_hf_dir_tensors(dir); i++) {
        const char *name = hy3_hf_dir_tensor(dir, i, &shard);

        if (hy3_hf_dir_find(dir, name) != i || strchr(hy3_hf_dir_shard_name(dir, shard), '/'))
            abort();
    }
    hy3_hf_dir_close(dir);
    return 0;
}
