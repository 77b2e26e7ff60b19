/* SPDX-License-Identifier: Apache-2.0 */
/* config.c - the keys of adapter_config.json that change the formula or the tensors. */
#include "ckpt/adapter/config.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/lora.h"

#include <math.h>

enum { LIMIT = 1 << 20 }; /* bytes */

/* Keys that change the formula or the tensors; an adapter that sets one is refused. */
static const char *const refused[] = {
    "use_dora",
    "use_qalora",
    "lora_bias",
    "fan_in_fan_out",
    "alpha_pattern",
    "rank_pattern",
    "layer_replication",
    "use_bdlora",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "arrow_config",
    "corda_config",
    "eva_config",
    "lora_ga_config",
    "velora_config",
    "monteclora_config",
    "kasa_config",
};

/* Keys that change neither; of any other key that is set the user is told. */
static const char *const harmless[] = {
    "peft_type",
    "task_type",
    "peft_version",
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "r",
    "lora_alpha",
    "lora_dropout",
    "bias",
    "init_lora_weights",
    "target_modules",
    "target_parameters",
    "use_rslora",
    "modules_to_save",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "megatron_config",
    "megatron_core",
    "loftq_config",
    "qalora_group_size",
    "runtime_config",
    "ensure_weight_tying",
};

static bool is_off(const json_t *value)
{
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0);
}

static bool is_in(const char *const *list, size_t count, const char *text)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(list[i], text) == 0)
            return true;
    return false;
}

/* Tells of keys that nobody here knows: a later PEFT may mean something by them. */
static void tell_unknown(const json_t *config, const char *path)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)config, key, value)
    {
        if (!is_off(value) && !is_in(harmless, sizeof harmless / sizeof *harmless, key) &&
            !is_in(refused, sizeof refused / sizeof *refused, key))
            hy3_log(HY3_LOG_WARN, "%s: the key '%.100s' is not known and has no effect here", path,
                    key);
    }
}

static bool is_text(const json_t *value, const char *text)
{
    return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

/* Initializations that change the weights of the base as well (pissa, olora, corda, loftq): the
 * adapter is meant for the changed weights. */
static bool changes_base(const json_t *init)
{
    static const char *const usual[] = {"gaussian", "orthogonal", "eva"};

    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        if (is_text(init, usual[i]))
            return false;
    return json_is_string(init);
}

static hy3_status check_config(const json_t *config, const char *path)
{
    const json_t *bias = json_object_get(config, "bias");
    const json_t *init = json_object_get(config, "init_lora_weights");

    if (!is_text(json_object_get(config, "peft_type"), "LORA"))
        HY3_FAIL(HY3_EFORMAT, "%s: 'peft_type' is not \"LORA\"", path);
    if (!is_off(bias) && !is_text(bias, "none"))
        HY3_FAIL(HY3_EFORMAT, "%s: 'bias' must be \"none\"; hy_v3 has no biases", path);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (!is_off(json_object_get(config, refused[i])))
            HY3_FAIL(HY3_EFORMAT,
                     "%s: '%s' is set; only plain LoRA is read, W + scale B A; merge this "
                     "adapter with PEFT (merge_and_unload)",
                     path, refused[i]);
    if (changes_base(init))
        HY3_FAIL(HY3_EFORMAT,
                 "%s: 'init_lora_weights' is \"%s\", which has changed the model's weights too; "
                 "convert the adapter to plain LoRA with PEFT first",
                 path, json_string_value(init));
    return HY3_OK;
}

/* Whether a name has the number of a layer in it: "layers.3.self_attn.q_proj". */
static bool has_number(const char *name)
{
    for (; name; name = strchr(name, '.')) {
        name += *name == '.';
        size_t digits = strspn(name, "0123456789");

        if (digits > 0 && (name[digits] == '.' || name[digits] == '\0'))
            return true;
    }
    return false;
}

/* Whether one of the names is of one layer; a text is a regular expression. */
static bool names_layers(const json_t *value)
{
    const json_t *item;
    size_t i;

    if (json_is_string(value))
        return !is_text(value, "all-linear");
    json_array_foreach(value, i, item)
    {
        if (json_is_string(item) && has_number(json_string_value(item)))
            return true;
    }
    return false;
}

static bool is_partial(const json_t *config)
{
    return !is_off(json_object_get(config, "layers_to_transform")) ||
           !is_off(json_object_get(config, "exclude_modules")) ||
           names_layers(json_object_get(config, "target_modules")) ||
           names_layers(json_object_get(config, "target_parameters"));
}

/* PEFT's rule for a list: the name of the module, or its end after a dot. */
static bool names_module(const json_t *list, const char *module)
{
    const json_t *item;
    size_t i;

    json_array_foreach(list, i, item)
    {
        const char *name = json_string_value(item);
        size_t rest = name && strlen(module) >= strlen(name) ? strlen(module) - strlen(name) : 0;

        if (name && strcmp(module + rest, name) == 0 && (rest == 0 || module[rest - 1] == '.'))
            return true;
    }
    return false;
}

/* layers_to_transform: a number or a list of them. */
static bool has_layer(const json_t *layers, int layer)
{
    const json_t *item;
    size_t i;

    if (json_is_integer(layers))
        return json_integer_value(layers) == layer;
    json_array_foreach(layers, i, item)
    {
        if (json_integer_value(item) == layer)
            return true;
    }
    return false;
}

enum hy3_cover hy3_adapter_config_covers(const json_t *document, const struct hy3_param *matrix)
{
    const json_t *targets = json_object_get(document, "target_modules");
    const json_t *excluded = json_object_get(document, "exclude_modules");
    const json_t *layers = json_object_get(document, "layers_to_transform");
    char module[HY3_PARAM_NAME];

    if (hy3_kind_is_expert(matrix->kind))
        return HY3_COVER_UNKNOWN;
    snprintf(module, sizeof module, "%s", matrix->name);
    *strrchr(module, '.') = '\0'; /* ".weight" */
    if (names_module(excluded, module) || (!is_off(layers) && !has_layer(layers, matrix->layer)))
        return HY3_NOT_COVERED;
    if (!json_is_array(targets) || json_is_string(excluded))
        return HY3_COVER_UNKNOWN;
    return names_module(targets, module) ? HY3_COVERED : HY3_NOT_COVERED;
}

/* Tensors of the model that the adapter has whole. */
static hy3_status read_saved(const json_t *config, const char *path, struct hy3_lora *lora)
{
    const json_t *names = json_object_get(config, "modules_to_save"), *name;
    size_t i;

    if (!is_off(names) && !json_is_array(names))
        HY3_FAIL(HY3_EFORMAT, "%s: 'modules_to_save' must be a list of names", path);
    json_array_foreach(names, i, name)
    {
        const char *text = json_is_string(name) ? json_string_value(name) : "";
        int kind = hy3_lora_saved_kind(text);

        if (kind < 0)
            HY3_FAIL(HY3_EFORMAT,
                     "%s: 'modules_to_save' has '%.100s'; embed_tokens and lm_head are read; "
                     "merge this adapter with PEFT (merge_and_unload)",
                     path, text);
        lora->saved[kind] = true;
    }
    return HY3_OK;
}

/* The scale alpha / sqrt(r). */
static hy3_status read_rslora(const json_t *config, const char *path, bool *out)
{
    const json_t *value = json_object_get(config, "use_rslora");

    *out = json_is_true(value);
    if (value && !json_is_boolean(value) && !json_is_null(value))
        HY3_FAIL(HY3_EFORMAT, "%s: 'use_rslora' must be true or false", path);
    return HY3_OK;
}

hy3_status hy3_adapter_config_read(const char *path, struct hy3_adapter_config *out)
{
    hy3_status status = HY3_OK;
    json_t *config = NULL;

    *out = (struct hy3_adapter_config){0};
    HY3_TRY_DONE(hy3_json_read(path, LIMIT, &config));
    HY3_TRY_DONE(check_config(config, path));
    HY3_TRY_DONE(hy3_json_int(config, "r", path, 1, 65536, &out->lora.rank));
    HY3_TRY_DONE(hy3_json_real_or(config, "lora_alpha", path, 0, &out->lora.alpha));
    if (!isfinite(out->lora.alpha) || out->lora.alpha <= 0)
        HY3_FAIL_DONE(HY3_EFORMAT, "%s: 'lora_alpha' is missing or not above 0", path);
    HY3_TRY_DONE(read_rslora(config, path, &out->lora.rslora));
    HY3_TRY_DONE(read_saved(config, path, &out->lora));
    out->partial = is_partial(config);
    tell_unknown(config, path);
    out->document = HY3_TAKE(config);
done:
    json_decref(config);
    return status;
}

/* Inserts a text into a list in alphabetical order, as PEFT writes them, if it is not there. */
static void insert_name(json_t *list, const char *name)
{
    size_t i = 0;

    while (i < json_array_size(list) &&
           strcmp(json_string_value(json_array_get(list, i)), name) < 0)
        i++;
    if (i == json_array_size(list) || strcmp(json_string_value(json_array_get(list, i)), name) != 0)
        json_array_insert_new(list, i, json_string(name));
}

/* Whether the adapter has factors in every layer that has the kind. */
static bool is_whole(const struct hy3_params *params, enum hy3_param_kind kind)
{
    for (int layer = 0; layer < params->shape.layers; layer++)
        if (hy3_params_find(params, kind, layer) &&
            !hy3_params_factor(params, HY3_LORA_A, kind, layer))
            return false;
    return true;
}

/* Whether the name that PEFT has for a target, "up_proj" of dense and shared MLPs, may stand for
 * all factors of it. */
static bool is_whole_target(const struct hy3_params *params, const char *target)
{
    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT; kind++)
        if (hy3_kinds[kind].target && strcmp(hy3_kinds[kind].target, target) == 0 &&
            !is_whole(params, kind))
            return false;
    return true;
}

/* The target of a factor: a name for all layers, or that of the one matrix. */
static void insert_target(json_t *names, json_t *parameters, const struct hy3_params *params,
                          const struct hy3_param *p)
{
    char module[HY3_PARAM_NAME];
    const struct hy3_kind *kind = &hy3_kinds[p->kind];

    snprintf(module, sizeof module, "%s", hy3_params_find(params, p->kind, p->layer)->name);
    if (hy3_kind_is_expert(p->kind)) {
        insert_name(parameters, is_whole(params, p->kind) ? kind->name : module);
        return;
    }
    *strrchr(module, '.') = '\0'; /* ".weight" */
    insert_name(names, is_whole_target(params, kind->target) ? kind->target : module);
}

/* modules_to_save, null if there are none. */
static json_t *saved_names(const struct hy3_lora *lora)
{
    json_t *names = json_array();

    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT; kind++)
        if (lora->saved[kind])
            json_array_append_new(names, json_string(hy3_lora_saved_name(kind)));
    if (json_array_size(names) > 0)
        return names;
    json_decref(names);
    return json_null();
}

json_t *hy3_adapter_config_create(const struct hy3_params *params, const char *base_path)
{
    const struct hy3_lora *lora = &params->lora;
    json_t *names = json_array(), *parameters = json_array(), *config;
    bool whole = lora->alpha == floor(lora->alpha), experts;

    for (int i = params->base_count; i < params->count; i++)
        if (params->params[i].part == HY3_LORA_A)
            insert_target(names, parameters, params, &params->params[i]);
    experts = json_array_size(parameters) > 0;
    /* PEFT refuses to load target_parameters with a dropout, which matters in training only */
    config = json_pack(
        "{s:s, s:s, s:s, s:{}, s:{}, s:b, s:b, s:b, s:I, s:o, s:f, s:o, s:o, s:o, s:b, s:b}",
        "peft_type", "LORA", "task_type", "CAUSAL_LM", "bias", "none", "alpha_pattern",
        "rank_pattern", "fan_in_fan_out", 0, "inference_mode", 1, "init_lora_weights", 1, "r",
        (json_int_t)lora->rank, "lora_alpha",
        whole ? json_integer((json_int_t)lora->alpha) : json_real(lora->alpha), "lora_dropout",
        experts ? 0.0 : lora->dropout, "modules_to_save", saved_names(lora), "target_modules",
        names, "target_parameters", experts ? parameters : (json_decref(parameters), json_null()),
        "use_dora", 0, "use_rslora", lora->rslora);
    if (config)
        json_object_set_new(config, "base_model_name_or_path", json_string(base_path));
    return config;
}
