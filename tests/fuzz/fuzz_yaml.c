/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_yaml.c - any bytes as a YAML of LLaMA-Factory or ms-swift; as JSON where they begin with a
 * brace. */
#include "config/foreign/yaml.h"
#include "fuzz_foreign.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bool is_json = size > 0 && data[0] == '{';
    struct hy3_settings settings = {0};
    struct hy3_problems problems = {0};
    enum hy3_origin origin;
    char *text = fuzz_text(data, size);

    fuzz_begin_mpi();
    if ((is_json ? hy3_json_settings(text, size, "run.yaml", "", &settings, &problems)
                 : hy3_yaml_read(text, size, "run.yaml", &settings, &problems)) != HY3_OK)
        abort();
    origin = hy3_origin_of(&settings);
    if (problems.count == 0 && (is_json || hy3_interpolate(&settings, &problems) == HY3_OK)) {
        hy3_foreign_settle_nulls(origin, &settings);
        fuzz_translate(&settings, origin, "run.yaml");
    }
    hy3_settings_free(&settings);
    free(text);
    return 0;
}
