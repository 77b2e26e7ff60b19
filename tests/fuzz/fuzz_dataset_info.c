/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_dataset_info.c - any bytes as dataset_info.json: entry "d", and one that is not there. */
#include "data/dataset_info.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char path[HY3_PATH_MAX], name[] = "d", other[] = "other", *names[] = {name, other};
    struct hy3_named_data named;

    fuzz_begin_mpi();
    fuzz_write(fuzz_path(path, "x"), "{}", 2);
    fuzz_write(fuzz_path(path, "dataset_info.json"), data, size);
    for (int count = 1; count <= 2; count++)
        if (hy3_dataset_info_resolve(fuzz_directory(), names, count, &named) == HY3_OK) {
            if (named.count < 1)
                HY3_BUG("a data set without a file");
            hy3_named_data_free(&named);
        }
    return 0;
}
