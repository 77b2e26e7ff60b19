/* SPDX-License-Identifier: Apache-2.0 */
/* mtp.c - the table with MTP layers in it. */
#include "ckpt/hf/mtp.h"

#include "base/memory.h"

enum { MTP_EXTRAS = 4 };

/* clang-format off */
static const struct extra { /* what an MTP layer has besides those of any layer */
    const char *name;
    bool is_matrix;
} extras[MTP_EXTRAS] = {
    {"eh_proj",         true},
    {"enorm",           false},
    {"hnorm",           false},
    {"final_layernorm", false},
};

/* clang-format on */

static void add_extra(struct hy3_params *params, int layer, const struct extra *extra)
{
    struct hy3_param *p = &params->params[params->count++];
    int64_t H = params->shape.hidden;

    *p = (struct hy3_param){.kind = HY3_PARAM_KIND_COUNT, .layer = layer};
    snprintf(p->name, sizeof p->name, "model.layers.%d.%s.weight", layer, extra->name);
    p->decay = extra->is_matrix;
    p->dims = extra->is_matrix ? 2 : 1;
    p->shape[0] = H;
    p->shape[1] = extra->is_matrix ? 2 * H : 0;
    p->count = p->held = extra->is_matrix ? 2 * H * H : H;
}

hy3_status hy3_mtp_params(const struct hy3_shape *shape, struct hy3_params **out)
{
    hy3_status status = HY3_OK;
    struct hy3_shape deeper = *shape;
    struct hy3_params *params = NULL;
    struct hy3_param *wide = NULL;
    size_t capacity = 0, count;

    *out = NULL;
    deeper.layers += shape->mtp_layers;
    HY3_TRY_DONE(hy3_params_create(&deeper, 0, shape->experts, &params));
    count = (size_t)params->count;
    HY3_TRY_DONE(
        hy3_grow(&wide, &capacity, count + (size_t)(MTP_EXTRAS * shape->mtp_layers), sizeof *wide));
    memcpy(wide, params->params, count * sizeof *wide);
    hy3_free(params->params);
    params->params = wide;
    for (int64_t layer = shape->layers; layer < deeper.layers; layer++)
        for (int i = 0; i < MTP_EXTRAS; i++)
            add_extra(params, (int)layer, &extras[i]);
    *out = params;
    params = NULL;
done:
    hy3_params_free(params);
    return status;
}
