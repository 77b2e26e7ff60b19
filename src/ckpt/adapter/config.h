/* SPDX-License-Identifier: Apache-2.0 */
/* config.h - PEFT's adapter_config.json, read and made. */
#pragma once

#include "model/params.h"

#include <jansson.h>

struct hy3_adapter_config {
    struct hy3_lora lora; /* rank and alpha; the tensors tell the targets */
    bool partial;         /* may leave out layers that have a target */
    json_t *document;     /* owned by the caller (json_decref) */
};

/* Local. Errors: HY3_EIO; HY3_EFORMAT naming the key, also for kinds of adapters that add something
 * other than scale B A. */
hy3_status hy3_adapter_config_read(const char *path, struct hy3_adapter_config *out);

enum hy3_cover { HY3_NOT_COVERED, HY3_COVERED, HY3_COVER_UNKNOWN };

/* Local. Whether the document names this matrix of the base as one with factors, by PEFT's rules;
 * not known where that takes a regular expression, or for routed experts. */
enum hy3_cover hy3_adapter_config_covers(const json_t *document, const struct hy3_param *matrix);

/* Local. The document of the table's adapter, NULL without memory. The caller owns it
 * (json_decref). */
json_t *hy3_adapter_config_create(const struct hy3_params *params, const char *base_path);
