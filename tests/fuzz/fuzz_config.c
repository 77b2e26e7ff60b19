/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_config.c - any bytes as a config.json: refused, or a shape whose table can be made. */
#include "base/json.h"
#include "model/params.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *config = NULL;
    struct hy3_shape shape;
    struct hy3_params *params = NULL;

    if (hy3_json_parse((const char *)data, size, "config.json", &config) == HY3_OK &&
        hy3_shape_read(config, "config.json", &shape) == HY3_OK &&
        hy3_params_create(&shape, 0, shape.experts, &params) == HY3_OK)
        for (int i = 0; i < params->count; i++)
            if (params->params[i].count <= 0 ||
                hy3_params_named(params, params->params[i].name) != &params->params[i])
                abort();
    hy3_params_free(params);
    json_decref(config);
    return 0;
}
