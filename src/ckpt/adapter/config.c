/* SPDX-License-Identifier: Apache-2.0 */
/* config.c - the keys of adapter_config.json that change the formula or the tensors. */
#include "ckpt/adapter/config.h"

#include "base/file.h"
#include "base/json.h"

#include <math.h>

enum { LIMIT = 1 << 20 }; /* bytes */

/* Keys that change the formula or the tensors; an adapter that sets one is refused. */
static const char *const refused[] = {
    "use_dora",
    "use_rslora",
    "use_qalora",
    "lora_bias",
    "fan_in_fan_out",
    "alpha_pattern",
    "rank_pattern",
    "modules_to_save",
    "layer_replication",
    "use_bdlora",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "arrow_config",
    "corda_config",
    "eva_config",
    "velora_config",
    "monteclora_config",
    "kasa_config",
    "layers_to_transform",
};

static bool is_off(const json_t *value)
{
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0);
}

static bool is_text(const json_t *value, const char *text)
{
    return json_is_string(value) && strcmp(json_string_value(value), text) == 0;
}

/* Initializations that change the weights of the base as well (pissa, olora, corda, loftq): the
 * adapter is meant for the changed weights. */
static bool changes_base(const json_t *init)
{
    static const char *const harmless[] = {"gaussian", "orthogonal", "eva"};

    for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
        if (is_text(init, harmless[i]))
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
            HY3_FAIL(HY3_EFORMAT, "%s: '%s' is set; only plain LoRA is read, W + alpha / r * B A",
                     path, refused[i]);
    if (changes_base(init))
        HY3_FAIL(HY3_EFORMAT,
                 "%s: 'init_lora_weights' is \"%s\", which has changed the model's weights too; "
                 "convert the adapter to plain LoRA with PEFT first",
                 path, json_string_value(init));
    return HY3_OK;
}

/* Whether one of target_parameters ends so. */
static bool has_target_parameter(const json_t *config, const char *end)
{
    const json_t *list = json_object_get(config, "target_parameters"), *item;
    size_t i;

    json_array_foreach(list, i, item)
    {
        if (json_is_string(item) && hy3_ends_with(json_string_value(item), end))
            return true;
    }
    return false;
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
    out->gate_up_alone =
        has_target_parameter(config, "gate_up_proj") && !has_target_parameter(config, "down_proj");
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

json_t *hy3_adapter_config_create(const struct hy3_lora *lora, const char *base_path)
{
    json_t *names = json_array(), *parameters = json_array(), *config;
    bool whole = lora->alpha == floor(lora->alpha), experts;

    for (int kind = 0; kind < HY3_PARAM_KIND_COUNT; kind++)
        if (lora->targets[kind] && hy3_kind_is_expert(kind))
            insert_name(parameters, hy3_kinds[kind].name);
        else if (lora->targets[kind] && hy3_kinds[kind].target)
            insert_name(names, hy3_kinds[kind].target);
    experts = json_array_size(parameters) > 0;
    /* PEFT refuses to load target_parameters with a dropout, which matters in training only */
    config = json_pack(
        "{s:s, s:s, s:s, s:{}, s:{}, s:b, s:b, s:b, s:I, s:o, s:f, s:n, s:o, s:o, s:b, s:b}",
        "peft_type", "LORA", "task_type", "CAUSAL_LM", "bias", "none", "alpha_pattern",
        "rank_pattern", "fan_in_fan_out", 0, "inference_mode", 1, "init_lora_weights", 1, "r",
        (json_int_t)lora->rank, "lora_alpha",
        whole ? json_integer((json_int_t)lora->alpha) : json_real(lora->alpha), "lora_dropout",
        experts ? 0.0 : lora->dropout, "modules_to_save", "target_modules", names,
        "target_parameters", experts ? parameters : (json_decref(parameters), json_null()),
        "use_dora", 0, "use_rslora", 0);
    if (config)
        json_object_set_new(config, "base_model_name_or_path", json_string(base_path));
    return config;
}
