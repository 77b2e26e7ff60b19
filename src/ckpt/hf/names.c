/* SPDX-License-Identifier: Apache-2.0 */
/* names.c - names of a checkpoint against the entries of model/kinds.h. */
#include "ckpt/hf/names.h"

const char *const hy3_names_words[] = {[HY3_INNER] = "inner", [HY3_OUTER] = "outer", NULL};

static const char prefix[] = HY3_LAYER_PREFIX;

/* Reads "<number>." without leading zeros; returns what follows, NULL if it is something else. */
static const char *read_number(const char *text, int64_t *number)
{
    size_t digits = strspn(text, "0123456789");

    if (digits == 0 || digits > 6 || (digits > 1 && text[0] == '0') || text[digits] != '.')
        return NULL;
    *number = strtol(text, NULL, 10);
    return text + digits + 1;
}

/* What follows "model.layers.N.", NULL for other names. */
static const char *read_layer(const char *name, int *layer)
{
    const char *rest;
    int64_t number;

    *layer = -1;
    if (strncmp(name, prefix, sizeof prefix - 1) != 0)
        return NULL;
    if ((rest = read_number(name + sizeof prefix - 1, &number)))
        *layer = (int)number;
    return rest;
}

static bool join(char out[HY3_PARAM_NAME], int layer, const char *rest)
{
    return snprintf(out, HY3_PARAM_NAME, "%s%d.%s", prefix, layer, rest) < HY3_PARAM_NAME;
}

/* Whether a name is the inner one of an entry: # stands for the number of an expert, which goes to
 * *expert (-1: none). */
static bool is_inner(const char *rest, const char *inner, int64_t *expert)
{
    const char *number = inner ? strchr(inner, '#') : NULL;
    size_t before = number ? (size_t)(number - inner) : 0;

    *expert = -1;
    if (!number)
        return inner && strcmp(rest, inner) == 0;
    if (strncmp(rest, inner, before) != 0)
        return false;
    rest = read_number(rest + before, expert);
    return rest && strcmp(rest, number + strlen("#.")) == 0;
}

bool hy3_name_parse(const char *name, struct hy3_name *out)
{
    const char *rest;

    *out = (struct hy3_name){.expert = -1, .layer = -1};
    if (snprintf(out->outer, sizeof out->outer, "%s", name) >= (int)sizeof out->outer)
        return false;
    rest = read_layer(name, &out->layer);
    if (!rest)
        return true;
    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT; kind++) {
        const struct hy3_kind *entry = &hy3_kinds[kind];
        int64_t expert;

        for (int i = 0; i < 2; i++)
            if (is_inner(rest, entry->inner[i], &expert)) {
                out->expert = expert;
                out->part = expert >= 0 ? i : 0;
                out->is_inner = true;
                return join(out->outer, out->layer, entry->name);
            }
        out->is_outer |= entry->inner[0] && strcmp(rest, entry->name) == 0;
    }
    return true;
}

/* The inner name of an entry, or of a part of one of its experts; false if there is none. */
static bool format_inner(const struct hy3_kind *entry, int layer, int64_t expert, int part,
                         char out[HY3_PARAM_NAME])
{
    const char *inner = entry->inner[part], *number = inner ? strchr(inner, '#') : NULL;
    char rest[HY3_PARAM_NAME];

    if (!inner || !number != (expert < 0))
        return false;
    if (!number)
        return join(out, layer, inner);
    snprintf(rest, sizeof rest, "%.*s%lld%s", (int)(number - inner), inner, (long long)expert,
             number + 1);
    return join(out, layer, rest);
}

bool hy3_name_format(const char *outer, int64_t expert, int part, enum hy3_names names,
                     char out[HY3_PARAM_NAME])
{
    const char *rest;
    int layer;

    if (names == HY3_INNER && (rest = read_layer(outer, &layer)))
        for (int kind = 0; kind < HY3_PARAM_KIND_COUNT; kind++)
            if (strcmp(rest, hy3_kinds[kind].name) == 0 &&
                format_inner(&hy3_kinds[kind], layer, expert, part, out))
                return true;
    return expert < 0 && snprintf(out, HY3_PARAM_NAME, "%s", outer) < HY3_PARAM_NAME;
}

/* Parts of one expert's share of the parameter: gate and up, or one; 0 if it is no tensor of
 * experts, or not divided. */
static int expert_parts(const struct hy3_param *param)
{
    const char *const *inner = hy3_kinds[param->kind].inner;

    return !inner[0] || !strchr(inner[0], '#') ? 0 : inner[1] ? 2 : 1;
}

int64_t hy3_name_pieces(const struct hy3_param *param, const struct hy3_shape *shape,
                        enum hy3_names names)
{
    int parts = expert_parts(param);

    return names == HY3_OUTER || parts == 0 ? 1 : parts * shape->experts;
}

/* PEFT's two dimensions: of fused experts A is [rank E, in] and B [out, rank E]. */
static void factor_piece(const struct hy3_param *param, char name[HY3_PARAM_NAME], int *dims,
                         int64_t shape[3])
{
    memcpy(name, param->name, HY3_PARAM_NAME);
    memcpy(shape, param->shape, sizeof param->shape);
    *dims = 2;
    if (param->dims == 2)
        return;
    shape[0] = param->part == HY3_LORA_A ? param->shape[0] * param->shape[1] : param->shape[1];
    shape[1] = param->count / shape[0];
    shape[2] = 0;
}

struct hy3_span hy3_name_piece(const struct hy3_param *param, const struct hy3_shape *shape,
                               enum hy3_names names, int64_t i, char name[HY3_PARAM_NAME],
                               int *dims, int64_t piece_shape[3])
{
    int parts = expert_parts(param);
    bool whole = names == HY3_OUTER || parts == 0;
    int64_t count;

    if (param->part != HY3_BASE) {
        factor_piece(param, name, dims, piece_shape);
        return (struct hy3_span){0, param->count};
    }
    HY3_ASSERT(i >= 0 && i < hy3_name_pieces(param, shape, names));
    if (!hy3_name_format(param->name, whole ? -1 : i / parts, whole ? 0 : (int)(i % parts), names,
                         name))
        HY3_BUG("no name for a piece of %s", param->name);
    if (whole) {
        *dims = param->dims;
        memcpy(piece_shape, param->shape, sizeof param->shape);
        return (struct hy3_span){0, param->count};
    }
    *dims = param->dims - 1;
    piece_shape[0] = param->shape[1] / parts;
    piece_shape[1] = param->shape[2];
    piece_shape[2] = 0;
    count = param->count / (param->shape[0] * parts);
    return (struct hy3_span){i * count, count};
}

void hy3_name_in_adapter(const struct hy3_param *param, char name[HY3_PARAM_NAME], int *dims,
                         int64_t shape[3])
{
    if (param->part != HY3_BASE) {
        factor_piece(param, name, dims, shape);
        return;
    }
    snprintf(name, HY3_PARAM_NAME, "base_model.model.%.80s", param->name);
    *dims = param->dims;
    memcpy(shape, param->shape, sizeof param->shape);
}

void hy3_name_locate(const struct hy3_params *params, const char *name, struct hy3_place *out)
{
    const struct hy3_shape *shape = &params->shape;
    const struct hy3_param *param;
    char formatted[HY3_PARAM_NAME];
    struct hy3_name parsed;

    *out = (struct hy3_place){.pieces = 1};
    if (!hy3_name_parse(name, &parsed))
        return;
    out->is_mtp = parsed.layer >= shape->layers && parsed.layer < shape->layers + shape->mtp_layers;
    param = hy3_params_named(params, parsed.outer);
    if (!param || (parsed.expert >= 0 && parsed.expert >= shape->experts))
        return;
    out->param = param;
    if (parsed.expert >= 0) {
        out->pieces = hy3_name_pieces(param, shape, HY3_INNER);
        out->piece = parsed.expert * expert_parts(param) + parsed.part;
    }
    out->span = hy3_name_piece(param, shape, parsed.expert >= 0 ? HY3_INNER : HY3_OUTER, out->piece,
                               formatted, &out->dims, out->shape);
}
