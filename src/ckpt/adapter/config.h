/* SPDX-License-Identifier: Apache-2.0 */
/* config.h - PEFT's adapter_config.json, read and made. */
#pragma once

#include "model/params.h"

struct hy3_adapter_config {
    struct hy3_lora lora; /* rank and alpha; the tensors tell the targets */
    bool gate_up_alone; /* of the fused experts' tensors gate_up_proj is a target, down_proj not */
};

/* Local. Errors: HY3_EIO; HY3_EFORMAT naming the key, also for kinds of adapters that add something
 * other than scale B A. */
hy3_status hy3_adapter_config_read(const char *path, struct hy3_adapter_config *out);

/* Local. The document of an adapter, NULL without memory. The caller owns it (json_decref). */
json_t *hy3_adapter_config_create(const struct hy3_lora *lora, const char *base_path);
