/* SPDX-License-Identifier: Apache-2.0 */
/* config.h - PEFT's adapter_config.json, read and made. */
#pragma once

#include "model/params.h"

struct hy3_adapter_config {
    struct hy3_lora lora; /* rank and alpha; the tensors tell the targets */
    bool partial;         /* may leave out layers that have a target */
};

/* Local. Errors: HY3_EIO; HY3_EFORMAT naming the key, also for kinds of adapters that add something
 * other than scale B A. */
hy3_status hy3_adapter_config_read(const char *path, struct hy3_adapter_config *out);

/* Local. The document of the table's adapter, NULL without memory. The caller owns it
 * (json_decref). */
json_t *hy3_adapter_config_create(const struct hy3_params *params, const char *base_path);
