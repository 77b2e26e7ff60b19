/* SPDX-License-Identifier: Apache-2.0 */
/* model.c - keys of LLaMA-Factory's files for Hy3 that repeat what the model's config.json says. */
#include "base/file.h"
#include "base/json.h"
#include "config/foreign/translation.h"

static const struct {
    const char *theirs, *name; /* of config.json */
} keys[] = {
    {"moe_num_experts", "num_experts"},
    {"moe_topk", "num_experts_per_tok"},
    {"moe_intermediate_size", "moe_intermediate_size"},
    {"moe_layer_num_skipped", "first_k_dense_replace"},
    {"output_router_logits", "output_router_logits"},
};

static void format(const json_t *value, char out[32])
{
    if (json_is_integer(value))
        snprintf(out, 32, "%lld", (long long)json_integer_value(value));
    else
        snprintf(out, 32, "%s", json_is_true(value) ? "true" : "false");
}

/* name: of config.json, where value may be absent: then only what switches it off is the same. */
static hy3_status check(struct hy3_translation *t, const struct hy3_setting *s, const char *name,
                        const json_t *value)
{
    const char *text = hy3_setting_text(s);
    char right[32];

    format(value, right);
    if (text && hy3_is_same_scalar(text, right))
        return hy3_note_unused(t, s->key);
    if (!value)
        hy3_problem(t->problems, s->where,
                    "%s%s%.64s: %s is absent from the model's config.json, which counts; leave it "
                    "out",
                    s->key, text ? " = " : "", text ? text : "", name);
    else
        hy3_problem(
            t->problems, s->where,
            "%s%s%.64s is not the %s of the model's config.json, which counts; leave it out",
            s->key, text ? " = " : "", text ? text : "", right);
    return HY3_OK;
}

hy3_status hy3_check_model(struct hy3_translation *t)
{
    hy3_status status = HY3_OK;
    const char *model = hy3_ours_text(t, "model_name_or_path");
    const struct hy3_setting *s;
    char path[HY3_PATH_MAX];
    json_t *config = NULL;
    bool any = false;

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        any = any || hy3_theirs(t, keys[i].theirs);
    if (t->origin != HY3_LLAMA_FACTORY || !any || !model ||
        !hy3_path_exists_in(model, "config.json")) /* a model that is not there is told later */
        return HY3_OK;
    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/config.json", model));
    HY3_TRY_DONE(hy3_json_read(path, 1 << 20, &config));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if ((s = hy3_theirs(t, keys[i].theirs)))
            HY3_TRY_DONE(check(t, s, keys[i].name, json_object_get(config, keys[i].name)));
done:
    json_decref(config);
    return status;
}
