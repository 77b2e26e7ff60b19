/* SPDX-License-Identifier: Apache-2.0 */
/* names.c - one table of names that differ, and one rule for experts. */
#include "ckpt/hf/names.h"

static const char prefix[] = "model.layers.";
static const char experts[] = "mlp.experts.";

/* clang-format off */
static const struct rule { /* what follows "model.layers.N." */
    const char *inner, *outer;
} rules[] = { /* the first rule of an outer name is the one for writing */
    {"mlp.router.gate.weight",          "mlp.gate.weight"},
    {"mlp.gate.wg.weight",              "mlp.gate.weight"},
    {"mlp.expert_bias",                 "mlp.e_score_correction_bias"},
    {"mlp.shared_mlp.gate_proj.weight", "mlp.shared_experts.gate_proj.weight"},
    {"mlp.shared_mlp.up_proj.weight",   "mlp.shared_experts.up_proj.weight"},
    {"mlp.shared_mlp.down_proj.weight", "mlp.shared_experts.down_proj.weight"},
};

static const struct expert_rule { /* inner: what follows "mlp.experts.N." */
    const char *inner, *outer;
    int part;
} expert_rules[] = {
    {"gate_proj.weight", "mlp.experts.gate_up_proj", 0},
    {"up_proj.weight",   "mlp.experts.gate_up_proj", 1},
    {"down_proj.weight", "mlp.experts.down_proj",    0},
};

/* clang-format on */

#define COUNT(table) (sizeof(table) / sizeof *(table))

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

static bool parse_expert(const char *rest, struct hy3_name *out)
{
    const char *part = NULL;
    int64_t expert;

    if (strncmp(rest, experts, sizeof experts - 1) == 0)
        part = read_number(rest + sizeof experts - 1, &expert);
    for (size_t i = 0; part && i < COUNT(expert_rules); i++)
        if (strcmp(part, expert_rules[i].inner) == 0) {
            out->expert = expert;
            out->part = expert_rules[i].part;
            out->is_inner = true;
            return join(out->outer, out->layer, expert_rules[i].outer);
        }
    return true;
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
    for (size_t i = 0; i < COUNT(rules); i++) {
        if (strcmp(rest, rules[i].inner) == 0) {
            out->is_inner = true;
            return join(out->outer, out->layer, rules[i].outer);
        }
        out->is_outer |= strcmp(rest, rules[i].outer) == 0;
    }
    for (size_t i = 0; i < COUNT(expert_rules); i++)
        out->is_outer |= strcmp(rest, expert_rules[i].outer) == 0;
    return parse_expert(rest, out);
}

static bool format_expert(const char *rest, int layer, int64_t expert, int part,
                          char out[HY3_PARAM_NAME])
{
    char inner[HY3_PARAM_NAME];

    for (size_t i = 0; i < COUNT(expert_rules); i++)
        if (expert_rules[i].part == part && strcmp(rest, expert_rules[i].outer) == 0) {
            snprintf(inner, sizeof inner, "%s%lld.%s", experts, (long long)expert,
                     expert_rules[i].inner);
            return join(out, layer, inner);
        }
    return false;
}

bool hy3_name_format(const char *outer, int64_t expert, int part, enum hy3_names names,
                     char out[HY3_PARAM_NAME])
{
    const char *rest;
    int layer;

    if (names == HY3_INNER && (rest = read_layer(outer, &layer))) {
        if (expert >= 0)
            return format_expert(rest, layer, expert, part, out);
        for (size_t i = 0; i < COUNT(rules); i++)
            if (strcmp(rest, rules[i].outer) == 0)
                return join(out, layer, rules[i].inner);
    }
    return snprintf(out, HY3_PARAM_NAME, "%s", outer) < HY3_PARAM_NAME;
}

/* Parts of one expert's share of the parameter: gate and up, or one; 0 if the parameter is not an
 * expert tensor. */
static int expert_parts(const struct hy3_param *param)
{
    return param->kind == HY3_P_GATE_UP ? 2 : param->kind == HY3_P_EXPERT_DOWN ? 1 : 0;
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
    *dims = 2;
    piece_shape[0] = param->shape[1] / parts;
    piece_shape[1] = param->shape[2];
    piece_shape[2] = 0;
    count = piece_shape[0] * piece_shape[1];
    return (struct hy3_span){i * count, count};
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
