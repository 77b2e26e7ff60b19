/* SPDX-License-Identifier: Apache-2.0 */
/* shape.c - tables of keys and their ranges, then the relations between them.
 *
 * The ranges keep every product of a tensor's extents, in bytes, far below 2^63; the last check
 * does so for the sum. */
#include "model/shape.h"

#include "base/json.h"

enum { NAMES = 4, ABSENT = -1, CONFIG_LIMIT = 16 << 20 };

struct int_key {
    const char *names[NAMES]; /* the first is the one for messages about a missing key */
    size_t offset;
    int64_t low, high, initial; /* initial ABSENT: must be there, or is decided later */
    bool required;
};

struct real_key {
    const char *names[NAMES];
    size_t offset;
    double low, high, initial; /* low is excluded, high included */
};

/* What to do about a value of another architecture, where nothing better can be said. */
#define ELSEWHERE "correct it if this is a Hy3, another architecture cannot be trained here"

/* Features that other configurations may ask for and that are fixed here: the only value that is
 * accepted, and what to do about another one. A missing key is fine. */
struct fixed_key {
    const char *name;
    bool value;
    const char *advice;
};

struct fixed_number {
    const char *name;
    double value;
};

struct fixed_text {
    const char *name, *value;
};

/* clang-format off */
#define AT(field) offsetof(struct hy3_shape, field)
static const struct int_key int_keys[] = {
    {{"num_hidden_layers"},                                 AT(layers),              1, 4096,    ABSENT, true},
    {{"first_k_dense_replace", "moe_layer_num_skipped"},    AT(dense_layers),        0, 4096,    ABSENT, false},
    {{"num_nextn_predict_layers"},                          AT(mtp_layers),          0, 64,      0,      false},
    {{"hidden_size"},                                       AT(hidden),              1, 1 << 20, ABSENT, true},
    {{"intermediate_size"},                                 AT(intermediate),        1, 1 << 22, ABSENT, false},
    {{"num_attention_heads"},                               AT(heads),               1, 1 << 14, ABSENT, true},
    {{"num_key_value_heads"},                               AT(kv_heads),            1, 1 << 14, ABSENT, false},
    {{"head_dim", "attention_head_dim"},                    AT(head_dim),            2, 1 << 12, ABSENT, false},
    {{"vocab_size"},                                        AT(vocab),               1, 1 << 26, ABSENT, true},
    {{"num_experts", "n_routed_experts", "num_local_experts"},
                                                            AT(experts),             0, 1 << 14, ABSENT, false},
    {{"num_experts_per_tok", "moe_topk"},                   AT(top_k),               1, 1 << 14, ABSENT, false},
    {{"num_shared_experts", "num_shared_expert", "n_shared_experts"},
                                                            AT(shared_experts),      0, 1 << 8,  1,      false},
    {{"moe_intermediate_size", "expert_hidden_dim"},        AT(expert_intermediate), 1, 1 << 20, ABSENT, false},
    {{"max_position_embeddings"},                           AT(max_positions),       1, 1 << 30, 131072, false},
};

static const struct real_key real_keys[] = {
    {{"router_scaling_factor", "route_scale", "routed_scaling_factor"}, AT(router_scaling), 0, 1e6, 2.826},
    {{"rms_norm_eps"},                                      AT(rms_eps),             0, 1,    1e-5},
    {{"initializer_range"},                                 AT(initializer_range),   0, 1e3,  0.006},
};

static const struct fixed_key fixed_keys[] = {
    {"tie_word_embeddings",           false, "save the model with an lm_head.weight of its own"},
    {"attention_bias",                false, ELSEWHERE},
    {"mlp_bias",                      false, ELSEWHERE},
    {"qk_norm",                       true,  ELSEWHERE},
    {"use_qk_norm",                   true,  ELSEWHERE},
    {"route_norm",                    true,  ELSEWHERE},
    {"norm_topk_prob",                true,  ELSEWHERE},
    {"moe_router_use_sigmoid",        true,  ELSEWHERE},
    {"moe_router_enable_expert_bias", true,  ELSEWHERE},
    {"use_sliding_window",            false, ELSEWHERE},
    {"use_cla",                       false, ELSEWHERE},
    {"use_mla",                       false, ELSEWHERE},
};

/* Where one of these precisions may be chosen hy3 computes in fp32 (doc/numerics.md): either value
 * is accepted. */
static const char *const precision_keys[] = {
    "enable_attention_fp32_softmax", "enable_lm_head_fp32", "enable_moe_fp32_combine"};

static const struct fixed_number fixed_numbers[] = {
    {"attention_dropout",       0},
    {"hidden_dropout",          0},
    {"router_jitter_noise",     0},
    {"attn_logit_softcapping",  0},
    {"final_logit_softcapping", 0},
    {"n_group",                 1},
    {"topk_group",              1},
    {"partial_rotary_factor",   1},
};

static const struct fixed_text fixed_texts[] = {
    {"model_type",   "hy_v3"},
    {"hidden_act",   "silu"},
    {"scoring_func", "sigmoid"},
    {"topk_method",  "noaux_tc"},
};

/* In rope_parameters: what the rotation without a scaling leaves as it is. */
static const struct fixed_number rope_numbers[] = {
    {"factor",                1},
    {"attention_factor",      1},
    {"partial_rotary_factor", 1},
};

/* clang-format on */

/* A value of a key that exists and is not null. */
static const json_t *present(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    return value && !json_is_null(value) ? value : NULL;
}

static hy3_status read_int(const json_t *config, const char *where, const struct int_key *key,
                           int64_t *out)
{
    const char *seen = NULL;
    int64_t value;

    *out = key->initial;
    for (int i = 0; i < NAMES && key->names[i]; i++) {
        if (!present(config, key->names[i]))
            continue;
        HY3_TRY(hy3_json_int(config, key->names[i], where, key->low, key->high, &value));
        if (seen && value != *out)
            HY3_FAIL(HY3_EFORMAT,
                     "%s: '%s' is %lld but '%s' is %lld: they are two names of one thing, remove "
                     "the wrong one",
                     where, seen, (long long)*out, key->names[i], (long long)value);
        *out = value;
        seen = key->names[i];
    }
    if (!seen && key->required)
        HY3_FAIL(HY3_EFORMAT, "%s: the key '%s' is missing", where, key->names[0]);
    return HY3_OK;
}

/* A number of low (excluded) .. high. */
static hy3_status read_number(const json_t *object, const char *key, const char *shown,
                              const char *where, double low, double high, double *out)
{
    const json_t *value = json_object_get(object, key);
    double number = json_number_value(value);

    if (!json_is_number(value))
        HY3_FAIL(HY3_EFORMAT, "%s: '%s' must be a number", where, shown);
    if (!(number > low && number <= high))
        HY3_FAIL(HY3_EFORMAT, "%s: '%s' is %g, it must be above %g and at most %g", where, shown,
                 number, low, high);
    *out = number;
    return HY3_OK;
}

/* Keeps `value` of `name` in *out, or complains that `*seen` said something else. */
static hy3_status agree(const char *where, const char **seen, const char *name, double value,
                        double *out)
{
    if (*seen && value != *out)
        HY3_FAIL(HY3_EFORMAT,
                 "%s: '%s' is %.17g but '%s' is %.17g: they are two names of one thing, "
                 "remove the wrong one",
                 where, *seen, *out, name, value);
    *seen = name;
    *out = value;
    return HY3_OK;
}

static hy3_status read_real(const json_t *config, const char *where, const struct real_key *key,
                            double *out)
{
    const char *seen = NULL;
    double value;

    *out = key->initial;
    for (int i = 0; i < NAMES && key->names[i]; i++) {
        if (!present(config, key->names[i]))
            continue;
        HY3_TRY(
            read_number(config, key->names[i], key->names[i], where, key->low, key->high, &value));
        HY3_TRY(agree(where, &seen, key->names[i], value, out));
    }
    return HY3_OK;
}

static hy3_status check_text(const json_t *object, const char *key, const char *shown,
                             const char *where, const char *wanted)
{
    const json_t *value = present(object, key);

    if (!value)
        return HY3_OK;
    if (!json_is_string(value))
        HY3_FAIL(HY3_EFORMAT, "%s: '%s' must be text", where, shown);
    if (strcmp(json_string_value(value), wanted) != 0)
        HY3_FAIL(HY3_EFORMAT, "%s: '%s' is '%.60s', only '%s' is supported; " ELSEWHERE, where,
                 shown, json_string_value(value), wanted);
    return HY3_OK;
}

/* A number that must be `key->value` if it is there. */
static hy3_status check_number(const json_t *object, const struct fixed_number *key,
                               const char *shown, const char *where)
{
    const json_t *value = present(object, key->name);

    if (!value)
        return HY3_OK;
    if (!json_is_number(value))
        HY3_FAIL(HY3_EFORMAT, "%s: '%s' must be a number", where, shown);
    if (json_number_value(value) != key->value)
        HY3_FAIL(HY3_EFORMAT, "%s: '%s' is %g, only %g is supported; " ELSEWHERE, where, shown,
                 json_number_value(value), key->value);
    return HY3_OK;
}

/* Every key of a group of the rotation says something about it: every one counts. */
static hy3_status check_rope_keys(const json_t *group, const char *name, const char *where)
{
    static const char *const read[] = {"rope_theta", "rope_type", "type"};
    const char *key;
    char shown[96];
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)group, key, value)
    {
        bool known = json_is_null(value);

        for (size_t i = 0; i < sizeof read / sizeof *read; i++)
            known = known || strcmp(key, read[i]) == 0;
        snprintf(shown, sizeof shown, "%s.%.60s", name, key);
        for (size_t i = 0; i < sizeof rope_numbers / sizeof *rope_numbers && !known; i++)
            if (strcmp(key, rope_numbers[i].name) == 0) {
                HY3_TRY(check_number(group, &rope_numbers[i], shown, where));
                known = true;
            }
        if (!known)
            HY3_FAIL(HY3_EFORMAT,
                     "%s: '%s' is set; a scaled rotation cannot be trained, use the model as it "
                     "was published, with rope_theta alone",
                     where, shown);
    }
    return HY3_OK;
}

/* Attention over all earlier tokens in every layer. */
static hy3_status check_attention_span(const json_t *config, const char *where)
{
    const json_t *types = present(config, "layer_types"), *used, *type;
    size_t i;

    used = present(config, "use_sliding_window");
    if (present(config, "sliding_window") && !json_is_false(used))
        HY3_FAIL(HY3_EFORMAT,
                 "%s: 'sliding_window' is set, but hy3 attends to all tokens; remove it, or set "
                 "use_sliding_window = false, if the model does not use it",
                 where);
    if (types && !json_is_array(types))
        HY3_FAIL(HY3_EFORMAT, "%s: 'layer_types' must be a list", where);
    json_array_foreach((json_t *)(uintptr_t)types, i, type)
    {
        const char *text = json_string_value(type);

        if (!text || strcmp(text, "full_attention") != 0)
            HY3_FAIL(HY3_EFORMAT,
                     "%s: 'layer_types[%zu]' is not 'full_attention', the only one that is "
                     "supported; " ELSEWHERE,
                     where, i);
    }
    return HY3_OK;
}

/* theta stands at the top or in rope_parameters (older: rope_scaling), which may also ask for a
 * scaling. */
static hy3_status read_rope(const json_t *config, const char *where, double *theta)
{
    static const char *const groups[] = {"rope_parameters", "rope_scaling"};
    const char *seen = NULL;
    char shown[64];
    double value;

    *theta = 11158840.0;
    if (present(config, "rope_theta")) {
        HY3_TRY(read_number(config, "rope_theta", "rope_theta", where, 0, 1e15, &value));
        HY3_TRY(agree(where, &seen, "rope_theta", value, theta));
    }
    for (int i = 0; i < 2; i++) {
        const json_t *group = present(config, groups[i]);

        if (!group)
            continue;
        if (!json_is_object(group))
            HY3_FAIL(HY3_EFORMAT, "%s: '%s' must be an object", where, groups[i]);
        snprintf(shown, sizeof shown, "%s.rope_type", groups[i]);
        HY3_TRY(check_text(group, "rope_type", shown, where, "default"));
        snprintf(shown, sizeof shown, "%s.type", groups[i]);
        HY3_TRY(check_text(group, "type", shown, where, "default"));
        HY3_TRY(check_rope_keys(group, groups[i], where));
        if (!present(group, "rope_theta"))
            continue;
        snprintf(shown, sizeof shown, "%s.rope_theta", groups[i]);
        HY3_TRY(read_number(group, "rope_theta", shown, where, 0, 1e15, &value));
        HY3_TRY(agree(where, &seen, shown, value, theta));
    }
    return HY3_OK;
}

/* Weights in 8 bits, of which the tensors say more than this (ckpt/hf/scales.h). */
static hy3_status check_quantization(const json_t *config, const char *where)
{
    const json_t *quantization = present(config, "quantization_config"), *block;
    const char *method, *format;

    if (!quantization)
        return HY3_OK;
    method = json_string_value(present(quantization, "quant_method"));
    format = json_string_value(present(quantization, "format"));
    if (!method || (strcmp(method, "fp8") != 0 && strcmp(method, "compressed-tensors") != 0) ||
        (format && strcmp(format, "float-quantized") != 0))
        HY3_FAIL(HY3_EFORMAT,
                 "%s: 'quantization_config' is of another kind than fp8 (quant_method fp8, or "
                 "compressed-tensors with format float-quantized); use the bf16 or fp8 publication",
                 where);
    block = present(quantization, "weight_block_size");
    if (block && (json_integer_value(json_array_get(block, 0)) != 128 ||
                  json_integer_value(json_array_get(block, 1)) != 128))
        HY3_FAIL(HY3_EFORMAT,
                 "%s: 'quantization_config.weight_block_size' is not [128, 128], the only size of "
                 "blocks that is supported",
                 where);
    return HY3_OK;
}

/* What is fixed in this model family. */
static hy3_status check_features(const json_t *config, const char *where)
{
    const char *type;
    bool value;

    HY3_TRY(hy3_json_text(config, "model_type", where, &type));
    for (size_t i = 0; i < sizeof fixed_texts / sizeof *fixed_texts; i++)
        HY3_TRY(check_text(config, fixed_texts[i].name, fixed_texts[i].name, where,
                           fixed_texts[i].value));
    for (size_t i = 0; i < sizeof fixed_keys / sizeof *fixed_keys; i++) {
        const struct fixed_key *key = &fixed_keys[i];

        HY3_TRY(hy3_json_bool_or(config, key->name, where, key->value, &value));
        if (value != key->value)
            HY3_FAIL(HY3_EFORMAT, "%s: '%s' is %s, only %s is supported; %s", where, key->name,
                     value ? "true" : "false", key->value ? "true" : "false", key->advice);
    }
    for (size_t i = 0; i < sizeof precision_keys / sizeof *precision_keys; i++)
        HY3_TRY(hy3_json_bool_or(config, precision_keys[i], where, false, &value));
    for (size_t i = 0; i < sizeof fixed_numbers / sizeof *fixed_numbers; i++)
        HY3_TRY(check_number(config, &fixed_numbers[i], fixed_numbers[i].name, where));
    HY3_TRY(check_attention_span(config, where));
    return check_quantization(config, where);
}

/* mlp_layer_types: "dense" for the first layers, "sparse" for all others. */
static hy3_status read_layer_types(const json_t *config, const char *where, struct hy3_shape *shape)
{
    const json_t *types = present(config, "mlp_layer_types");
    int64_t dense = 0, count = (int64_t)json_array_size(types);

    if (!types)
        return HY3_OK;
    if (!json_is_array(types) ||
        (count != shape->layers && count != shape->layers + shape->mtp_layers))
        HY3_FAIL(HY3_EFORMAT, "%s: 'mlp_layer_types' must be a list of %lld layers", where,
                 (long long)shape->layers);
    for (int64_t i = 0; i < count; i++) {
        const char *type = json_string_value(json_array_get(types, (size_t)i));
        bool is_dense = type && strcmp(type, "dense") == 0;

        if (!is_dense && !(type && (strcmp(type, "sparse") == 0 || strcmp(type, "moe") == 0)))
            HY3_FAIL(HY3_EFORMAT, "%s: 'mlp_layer_types[%lld]' must be 'dense' or 'sparse'", where,
                     (long long)i);
        if (is_dense && dense != i)
            HY3_FAIL(HY3_EFORMAT,
                     "%s: 'mlp_layer_types[%lld]' is dense after a sparse layer; only the first "
                     "layers may be dense",
                     where, (long long)i);
        dense += is_dense && i < shape->layers;
    }
    if (shape->dense_layers != ABSENT && shape->dense_layers != dense)
        HY3_FAIL(HY3_EFORMAT,
                 "%s: 'first_k_dense_replace' is %lld but 'mlp_layer_types' begins with %lld "
                 "dense layers",
                 where, (long long)shape->dense_layers, (long long)dense);
    shape->dense_layers = dense;
    return HY3_OK;
}

static hy3_status check_experts(const char *where, struct hy3_shape *shape)
{
    if (shape->dense_layers == ABSENT)
        shape->dense_layers = 1; /* as published */
    if (shape->dense_layers > shape->layers)
        HY3_FAIL(HY3_EFORMAT,
                 "%s: 'first_k_dense_replace' is %lld, more than the %lld of "
                 "'num_hidden_layers'",
                 where, (long long)shape->dense_layers, (long long)shape->layers);
    if (shape->experts == ABSENT && shape->dense_layers < shape->layers)
        HY3_FAIL(HY3_EFORMAT, "%s: the key 'num_experts' is missing", where);
    if (shape->experts <= 0) {
        shape->experts = shape->top_k = shape->shared_experts = shape->expert_intermediate = 0;
        shape->dense_layers = shape->layers;
        return HY3_OK;
    }
    if (shape->top_k == ABSENT)
        HY3_FAIL(HY3_EFORMAT, "%s: the key 'num_experts_per_tok' is missing", where);
    if (shape->expert_intermediate == ABSENT)
        HY3_FAIL(HY3_EFORMAT, "%s: the key 'moe_intermediate_size' is missing", where);
    if (shape->top_k > shape->experts)
        HY3_FAIL(HY3_EFORMAT,
                 "%s: 'num_experts_per_tok' is %lld, more than the %lld experts of "
                 "'num_experts'",
                 where, (long long)shape->top_k, (long long)shape->experts);
    return HY3_OK;
}

static hy3_status check_heads(const char *where, struct hy3_shape *shape)
{
    if (shape->kv_heads == ABSENT)
        shape->kv_heads = shape->heads;
    if (shape->heads % shape->kv_heads != 0)
        HY3_FAIL(HY3_EFORMAT,
                 "%s: 'num_key_value_heads' is %lld, it must divide the %lld of "
                 "'num_attention_heads'",
                 where, (long long)shape->kv_heads, (long long)shape->heads);
    if (shape->head_dim == ABSENT && shape->hidden % shape->heads != 0)
        HY3_FAIL(HY3_EFORMAT, "%s: the key 'head_dim' is missing", where);
    if (shape->head_dim == ABSENT)
        shape->head_dim = shape->hidden / shape->heads;
    if (shape->head_dim % 2 != 0)
        HY3_FAIL(HY3_EFORMAT, "%s: 'head_dim' is %lld, it must be even", where,
                 (long long)shape->head_dim);
    if (shape->intermediate == ABSENT && shape->dense_layers > 0)
        HY3_FAIL(HY3_EFORMAT, "%s: the key 'intermediate_size' is missing", where);
    if (shape->intermediate == ABSENT)
        shape->intermediate = 0;
    return HY3_OK;
}

/* The sum of all parameters must fit 64-bit byte counts with room to spare: a bound from the large
 * matrices, not the table of kinds, which is built on shapes that were checked. */
static hy3_status check_total(const char *where, const struct hy3_shape *s)
{
    double h = (double)s->hidden, q = (double)(s->heads * s->head_dim);
    double attention = 2 * h * q + 2 * h * (double)(s->kv_heads * s->head_dim);
    double dense = 3 * h * (double)s->intermediate;
    double moe = h * (double)s->experts +
                 3 * h * (double)s->expert_intermediate * (double)(s->experts + s->shared_experts);
    double total = 2 * h * (double)s->vocab + (double)s->layers * attention +
                   (double)s->dense_layers * dense +
                   (double)(s->layers - s->dense_layers + s->mtp_layers) * (moe + attention);

    if (total > 0x1p50)
        HY3_FAIL(HY3_EFORMAT,
                 "%s: 'hidden_size' and the other sizes describe %.3g parameters, more "
                 "than can be addressed",
                 where, total);
    return HY3_OK;
}

hy3_status hy3_shape_read(const json_t *config, const char *where, struct hy3_shape *out)
{
    struct hy3_shape shape = {0};

    if (!json_is_object(config))
        HY3_FAIL(HY3_EFORMAT, "%s: the top level must be an object", where);
    HY3_TRY(check_features(config, where));
    for (size_t i = 0; i < sizeof int_keys / sizeof *int_keys; i++)
        HY3_TRY(read_int(config, where, &int_keys[i],
                         (int64_t *)(void *)((char *)&shape + int_keys[i].offset)));
    for (size_t i = 0; i < sizeof real_keys / sizeof *real_keys; i++)
        HY3_TRY(read_real(config, where, &real_keys[i],
                          (double *)(void *)((char *)&shape + real_keys[i].offset)));
    HY3_TRY(read_rope(config, where, &shape.rope_theta));
    HY3_TRY(read_layer_types(config, where, &shape));
    HY3_TRY(check_experts(where, &shape));
    HY3_TRY(check_heads(where, &shape));
    HY3_TRY(check_total(where, &shape));
    *out = shape;
    return HY3_OK;
}

hy3_status hy3_shape_open(const char *path, struct hy3_shape *out)
{
    hy3_status status = HY3_OK;
    json_t *config = NULL;

    HY3_TRY_DONE(hy3_json_read(path, CONFIG_LIMIT, &config));
    HY3_TRY_DONE(hy3_shape_read(config, path, out));
done:
    json_decref(config);
    return status;
}

int64_t hy3_shape_token_cost(const struct hy3_shape *s)
{
    int64_t attention = 2 * s->hidden * (s->heads + s->kv_heads) * s->head_dim;
    int64_t experts = 3 * s->hidden * s->expert_intermediate * (s->top_k + s->shared_experts) +
                      s->hidden * s->experts;

    return s->layers * attention + s->dense_layers * 3 * s->hidden * s->intermediate +
           (s->layers - s->dense_layers) * experts + s->hidden * s->vocab;
}

int64_t hy3_shape_attention_length(const struct hy3_shape *s)
{
    int64_t length = hy3_shape_token_cost(s) / (s->layers * s->heads * s->head_dim);

    return length > 0 ? length : 1;
}
