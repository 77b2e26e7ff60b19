/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_adapter.c - any bytes as an adapter_config.json beside good factors: refused, or an adapter
 * that can be read. */
#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "ckpt/adapter/adapter.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct hy3_params *base(void)
{
    static struct hy3_shape shape;
    struct hy3_params *params;
    char path[HY3_PATH_MAX];

    if (hy3_path_format(path, sizeof path, "%s/tests/golden/a/inner/config.json",
                        getenv("HY3_SOURCE")) != HY3_OK ||
        hy3_shape_open(path, &shape) != HY3_OK ||
        hy3_params_create(&shape, 0, shape.experts, &params) != HY3_OK)
        abort();
    return params;
}

/* A directory with the golden factors, made once where the fuzzer runs. */
static const char *directory(void)
{
    static char path[] = "adapter-XXXXXX", *made;
    char from[HY3_PATH_MAX], to[HY3_PATH_MAX];

    if (made)
        return made;
    made = mkdtemp(path);
    if (!made ||
        hy3_path_format(from, sizeof from,
                        "%s/tests/golden/a/adapter_experts/final/adapter_model.safetensors",
                        getenv("HY3_SOURCE")) != HY3_OK ||
        hy3_path_format(to, sizeof to, "%s/adapter_model.safetensors", made) != HY3_OK ||
        hy3_output_copy(from, to) != HY3_OK)
        abort();
    return made;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hy3_params *params = base();
    struct hy3_adapter *adapter = NULL;
    char path[HY3_PATH_MAX];
    FILE *file;

    snprintf(path, sizeof path, "%s/adapter_config.json", directory());
    if (!(file = fopen(path, "w")) || fwrite(data, 1, size, file) != size || fclose(file) != 0)
        abort();
    if (hy3_adapter_open(directory(), params, &adapter) == HY3_OK &&
        hy3_params_add_adapter(params, hy3_adapter_lora(adapter)) == HY3_OK &&
        hy3_adapter_account(adapter, params) == HY3_OK)
        for (int i = params->base_count; i < params->count; i++) {
            float *values;

            if (hy3_alloc(&values, (size_t)params->params[i].held, sizeof *values) != HY3_OK ||
                hy3_adapter_read(adapter, &params->params[i], values) != HY3_OK)
                abort();
            hy3_free(values);
        }
    hy3_adapter_close(adapter);
    hy3_params_free(params);
    return 0;
}
