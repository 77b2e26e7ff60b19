/* SPDX-License-Identifier: Apache-2.0 */
/* bind.c - from the parameter table to arrays by kind. */
#include "engine/bind.h"

void hy3_bind_layer(const struct hy3_store *store, int index, struct hy3_layer_params *out)
{
    const struct hy3_params *params = hy3_store_params(store);

    *out = (struct hy3_layer_params){0};
    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT; kind++) {
        const struct hy3_param *param = hy3_params_find(params, kind, index);

        if (!param)
            continue;
        out->weight[kind] = hy3_store_weight(store, param);
        out->grad[kind] = hy3_store_grad(store, param);
        for (int part = HY3_LORA_A; part <= HY3_LORA_B; part++) {
            const struct hy3_param *factor = hy3_params_factor(params, part, kind, index);

            if (!factor)
                continue;
            out->factor[part][kind] = hy3_store_weight(store, factor);
            out->factor_grad[part][kind] = hy3_store_grad(store, factor);
        }
    }
}

void hy3_bind_head(const struct hy3_store *store, struct hy3_head *out)
{
    const struct hy3_params *params = hy3_store_params(store);
    const struct hy3_param *norm = hy3_params_find(params, HY3_P_FINAL_NORM, -1);
    const struct hy3_param *table = hy3_params_find(params, HY3_P_HEAD, -1);

    out->shape = &params->shape;
    out->dtype = hy3_store_dtype(store);
    out->norm = hy3_store_weight(store, norm);
    out->table = hy3_store_weight(store, table);
    out->norm_grad = hy3_store_grad(store, norm);
    out->table_grad = hy3_store_grad(store, table);
}

const struct hy3_lora *hy3_bind_lora(const struct hy3_store *store)
{
    const struct hy3_params *params = hy3_store_params(store);

    return params->lora.rank > 0 ? &params->lora : NULL;
}
