/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_adapter.c - any bytes as an adapter_config.json beside good factors: refused, or an adapter
 * that can be read. */
#include "ckpt/adapter/adapter.h"
#include "ckpt/adapter/check.h"
#include "fuzz.h"

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

/* The golden factors beside the file, copied once. */
static void place_factors(void)
{
    static bool is_copied;
    char from[HY3_PATH_MAX], to[HY3_PATH_MAX];

    if (!is_copied &&
        (hy3_path_format(from, sizeof from,
                         "%s/tests/golden/a/adapter_experts/final/adapter_model.safetensors",
                         getenv("HY3_SOURCE")) != HY3_OK ||
         hy3_output_copy(from, fuzz_path(to, "adapter_model.safetensors")) != HY3_OK))
        abort();
    is_copied = true;
}

/* Findings are no errors: only memory can be missing. */
static void check(void)
{
    struct hy3_adapter_check_summary summary;
    FILE *out = fopen("/dev/null", "w");

    if (!out)
        abort();
    if (hy3_adapter_check(fuzz_directory(), NULL, out, &summary) != HY3_OK)
        HY3_BUG("a check fails: %s", hy3_error_text());
    fclose(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hy3_params *params = base();
    struct hy3_adapter *adapter = NULL;
    char path[HY3_PATH_MAX];

    place_factors();
    fuzz_write(fuzz_path(path, "adapter_config.json"), data, size);
    check();
    if (hy3_adapter_open(fuzz_directory(), params, &adapter) == HY3_OK &&
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
