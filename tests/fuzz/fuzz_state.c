/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_state.c - any bytes as a state.h5: refused, or an index that stays inside the file. */
#include "ckpt/state/file.h"
#include "fuzz.h"

static void check_index(const struct hy3_state_index *index, size_t size)
{
    for (int64_t i = 0; i < index->tensor_count; i++)
        for (int field = 0; field < HY3_FIELDS; field++) {
            const struct hy3_state_tensor *t = &index->tensors[i];

            if (t->count < 1 || t->offset[field] < 0 ||
                t->offset[field] + t->count * 4 > (int64_t)size)
                abort();
        }
    if (index->info.step < 0 || index->info.step > index->info.total_steps)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hy3_state_index index;
    char path[HY3_PATH_MAX];

    fuzz_write(fuzz_path(path, "state.h5"), data, size);
    if (hy3_state_file_inspect(path, &index) == HY3_OK) {
        check_index(&index, size);
        hy3_state_index_free(&index);
    }
    return 0;
}
