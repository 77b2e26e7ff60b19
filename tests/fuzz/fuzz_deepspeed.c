/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_deepspeed.c - any bytes as the JSON of DeepSpeed that a YAML names, and as the map in its
 * place. */
#include "config/foreign/yaml.h"
#include "fuzz_foreign.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hy3_settings file = {0}, map = {0};
    struct hy3_setting *deepspeed;
    struct hy3_problems problems = {0};
    char path[HY3_PATH_MAX], *text = fuzz_text(data, size);

    fuzz_begin_mpi();
    fuzz_write(fuzz_path(path, "z.json"), data, size);
    if (hy3_settings_add(&file, "deepspeed", "run.yaml:1", &deepspeed) != HY3_OK ||
        hy3_list_add(&deepspeed->texts, path, strlen(path)) != HY3_OK)
        abort();
    deepspeed->type = HY3_VALUE_WORD;
    fuzz_translate(&file, HY3_LLAMA_FACTORY, "run.yaml");
    if (hy3_json_settings(text, size, "run.json", "deepspeed", &map, &problems) != HY3_OK)
        abort();
    if (problems.count == 0)
        fuzz_translate(&map, HY3_MS_SWIFT, "run.json");
    hy3_settings_free(&file);
    hy3_settings_free(&map);
    free(text);
    return 0;
}
