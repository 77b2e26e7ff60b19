/* SPDX-License-Identifier: Apache-2.0 */
/* deepspeed.c - DeepSpeed's JSON: ZeRO, offload, and numbers that must agree with the rest. */
#include "base/file.h"
#include "base/memory.h"
#include "config/assign.h"
#include "config/foreign/translation.h"
#include "config/foreign/yaml.h"

#include <math.h>
#include <stdlib.h>

enum { FILE_LIMIT = 1 << 20 };

static const char prefix[] = "deepspeed.";

/* "auto", null and absent are the same: hy3's value. */
static const struct hy3_setting *get(const struct hy3_settings *json, const char *key)
{
    for (size_t i = 0; i < json->count; i++) {
        const struct hy3_setting *s = &json->items[i];

        if (strcmp(s->key, key) == 0 && s->type != HY3_VALUE_NULL &&
            !(hy3_setting_text(s) && strcmp(hy3_setting_text(s), "auto") == 0))
            return s;
    }
    return NULL;
}

static bool is_device(const struct hy3_setting *s, const char *name)
{
    return s && hy3_setting_text(s) && strcmp(hy3_setting_text(s), name) == 0;
}

/* Whether an offload is set, by the new form or the old one. */
static bool moves(struct hy3_translation *t, const struct hy3_setting *device,
                  const struct hy3_setting *old)
{
    bool truth = false;

    if (device && !is_device(device, "none") && !is_device(device, "cpu") &&
        !is_device(device, "nvme"))
        hy3_problem(t->problems, device->where, "%s must be none, cpu or nvme", device->key);
    if (device)
        return is_device(device, "cpu") || is_device(device, "nvme");
    return old && hy3_setting_text(old) && hy3_scalar_truth(hy3_setting_text(old), &truth) && truth;
}

/* One directory for what goes to local disks. */
static hy3_status put_directory(struct hy3_translation *t, const struct hy3_settings *json,
                                const char *from)
{
    const struct hy3_setting *device[2], *path[2], *used = NULL;
    char found[HY3_PATH_MAX];

    device[0] = get(json, "zero_optimization.offload_optimizer.device");
    device[1] = get(json, "zero_optimization.offload_param.device");
    path[0] = get(json, "zero_optimization.offload_optimizer.nvme_path");
    path[1] = get(json, "zero_optimization.offload_param.nvme_path");
    for (int i = 0; i < 2; i++) {
        if (!is_device(device[i], "nvme"))
            continue;
        if (!path[i] || !hy3_setting_text(path[i]))
            hy3_problem(t->problems, device[i]->where, "%s = nvme needs nvme_path", device[i]->key);
        else if (used && strcmp(hy3_setting_text(used), hy3_setting_text(path[i])) != 0)
            hy3_problem(t->problems, path[i]->where,
                        "'%.100s' and '%.100s' are two nvme_path; hy3 has one offload_dir",
                        hy3_setting_text(used), hy3_setting_text(path[i]));
        else
            used = path[i];
    }
    if (!used)
        return HY3_OK;
    HY3_TRY(hy3_find_input(t, from, hy3_setting_text(used), NULL, found));
    return hy3_put_text(t, used, "offload_dir", found);
}

static hy3_status put_zero(struct hy3_translation *t, const struct hy3_settings *json,
                           const char *from)
{
    static const char *const words[] = {"none", "optimizer", "param", "full"};
    const struct hy3_setting *stage = get(json, "zero_optimization.stage");
    const struct hy3_setting *param = get(json, "zero_optimization.offload_param.device");
    bool has_optimizer = moves(t, get(json, "zero_optimization.offload_optimizer.device"),
                               get(json, "zero_optimization.cpu_offload"));
    bool has_param = moves(t, param, get(json, "zero_optimization.cpu_offload_params"));
    struct hy3_scalar_number number = {0};

    if (hy3_ours(t, "zero_stage") || hy3_ours(t, "offload"))
        return hy3_note(t, "zero_stage and offload are those given beside deepspeed");
    if (!stage)
        HY3_TRY(hy3_put_number(t, NULL, "zero_stage", 0));
    else
        HY3_TRY(hy3_put_plain(t, stage, "zero_stage", NULL));
    if (stage && hy3_setting_text(stage))
        hy3_scalar_number(hy3_setting_text(stage), false, &number);
    if (has_param && number.real != 3) {
        hy3_problem(t->problems, param ? param->where : "",
                    "zero_optimization.offload_param needs stage 3");
        return HY3_OK;
    }
    if (has_optimizer || has_param)
        HY3_TRY(hy3_put_text(t, NULL, "offload", words[has_optimizer + 2 * has_param]));
    return put_directory(t, json, from);
}

/* Whether the two say the same: as truths, or as numbers. */
static bool is_equal(const char *a, const char *b, bool are_truths)
{
    struct hy3_scalar_number x, y;
    bool s, t;

    if (are_truths)
        return hy3_scalar_truth(a, &s) && hy3_scalar_truth(b, &t) && s == t;
    return hy3_scalar_number(a, false, &x) && hy3_scalar_number(b, false, &y) && x.real == y.real;
}

/* The value of our key as a text: given, or the default that it will have. */
static hy3_status value_of(const struct hy3_translation *t, const char *key, char out[64])
{
    hy3_status status = HY3_OK;
    const struct hy3_setting *ours = hy3_ours(t, key);
    struct hy3_config defaults = {0};
    char *text = NULL;

    if (ours && ours->type == HY3_VALUE_BOOL)
        snprintf(out, 64, "%s", ours->truth ? "true" : "false");
    else if (ours) /* hy3_put_number sets it for whole ones, too */
        snprintf(out, 64, "%.17g", ours->real);
    if (ours)
        return HY3_OK;
    for (const struct hy3_foreign_default *d = hy3_foreign_defaults; d->key; d++)
        if ((d->origins & t->origin) && strcmp(d->key, key) == 0) {
            snprintf(out, 64, "%s", d->value);
            return HY3_OK;
        }
    HY3_TRY_DONE(hy3_config_defaults(&defaults));
    HY3_TRY_DONE(hy3_option_format(hy3_option_find(hy3_options, key), &defaults, &text));
    snprintf(out, 64, "%s", text);
done:
    hy3_free(text);
    hy3_config_free(&defaults);
    return status;
}

/* Numbers that stand in both places must be the same: Trainer refuses others, too (its
 * integrations/deepspeed.py, fill_match). */
static hy3_status check_equal(struct hy3_translation *t, const struct hy3_setting *s,
                              const char *key)
{
    const struct hy3_setting *ours = hy3_ours(t, key);
    const char *text = hy3_setting_text(s);
    bool is_default = !ours || *ours->where == '\0';
    char value[64];

    HY3_TRY(value_of(t, key, value));
    if (!text)
        hy3_problem(t->problems, s->where, "%s must be one value", s->key);
    else if (!is_equal(text, value, hy3_option_find(hy3_options, key)->type == HY3_BOOL))
        hy3_problem(t->problems, s->where,
                    "%s = %.64s is not the %s of %s%s; make them agree, or write \"auto\" here",
                    s->key, text, key, is_default ? "its default, " : ours->where,
                    is_default ? value : "");
    return HY3_OK;
}

/* [beta1, beta2] */
static hy3_status check_betas(struct hy3_translation *t, const struct hy3_setting *s)
{
    static const char *const keys[] = {"adam_beta1", "adam_beta2"};

    if (s->type == HY3_VALUE_WORD || s->texts.count != 2) {
        hy3_problem(t->problems, s->where, "%s must be \"auto\", or two numbers", s->key);
        return HY3_OK;
    }
    for (int i = 0; i < 2; i++) {
        char where[640], key[64];
        const struct hy3_setting one = {.key = key,
                                        .where = where,
                                        .type = HY3_VALUE_WORD,
                                        .texts = {.items = &s->texts.items[i], .count = 1}};

        snprintf(where, sizeof where, "%s", s->where);
        snprintf(key, sizeof key, "%.50s[%d]", s->key, i);
        HY3_TRY(check_equal(t, &one, keys[i]));
    }
    return HY3_OK;
}

static double number_of(const struct hy3_translation *t, const char *key)
{
    char value[64];

    return value_of(t, key, value) == HY3_OK ? strtod(value, NULL) : 0;
}

/* The samples of a step. */
static void check_batch(struct hy3_translation *t, const struct hy3_setting *s)
{
    int groups = t->ranks / (int)fmax(1, number_of(t, "sequence_parallel_size"));
    double samples = number_of(t, "per_device_train_batch_size") *
                     number_of(t, "gradient_accumulation_steps") * groups;
    struct hy3_scalar_number number;

    if (!hy3_setting_text(s) || !hy3_scalar_number(hy3_setting_text(s), false, &number))
        hy3_problem(t->problems, s->where, "train_batch_size must be \"auto\", or a number");
    else if (t->ranks > 0 && number.real != samples)
        hy3_problem(t->problems, s->where,
                    "train_batch_size = %.64s is not the %g samples of a step: "
                    "per_device_train_batch_size x gradient_accumulation_steps x %d %s",
                    hy3_setting_text(s), samples, groups,
                    groups < t->ranks ? "groups of ranks (sequence_parallel_size)" : "ranks");
}

/* Names a key that has no meaning here: "z3.json: aio". */
static hy3_status note_unused(struct hy3_translation *t, const char *file, const char *key)
{
    const char *dot = strrchr(key, '.');
    char name[128];

    if (strncmp(key, "aio", 3) == 0)
        key = "aio";
    else if (strncmp(key, "zero_optimization.", 18) == 0)
        key = dot + 1;
    snprintf(name, sizeof name, "%.60s: %.60s", hy3_path_name(file), key);
    return hy3_note_unused(t, name);
}

static hy3_status take_other(struct hy3_translation *t, const struct hy3_setting *s)
{
    enum hy3_origin outer = t->origin;
    hy3_status status;

    t->origin = HY3_DEEPSPEED;
    status = hy3_translate_setting(t, s);
    t->origin = outer;
    return status;
}

static hy3_status take(struct hy3_translation *t, const struct hy3_settings *json,
                       const struct hy3_setting *s, const char *file)
{
    static const char *const numbers[] = {"stage3_prefetch_bucket_size",
                                          "stage3_param_persistence_threshold",
                                          "stage3_max_reuse_distance"};
    const struct hy3_foreign_key *k = hy3_foreign_find(HY3_DEEPSPEED, s->key);

    if (!k || k->kind == HY3_FOREIGN_UNUSED)
        return note_unused(t, file, s->key);
    if (!get(json, s->key))
        return HY3_OK;
    if (k->kind != HY3_FOREIGN_MAPPED)
        return take_other(t, s);
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (k->to && strcmp(k->to, numbers[i]) == 0)
            return hy3_put_plain(t, s, numbers[i], NULL);
    if (strncmp(s->key, "zero_optimization.", 18) == 0)
        return HY3_OK; /* put_zero has read it */
    if (strcmp(s->key, "optimizer.params.betas") == 0)
        return check_betas(t, s);
    if (k->to)
        return check_equal(t, s, k->to);
    check_batch(t, s);
    return HY3_OK;
}

/* All of one JSON; file: its name, from: the file that names it. */
static hy3_status translate(struct hy3_translation *t, const struct hy3_settings *json,
                            const char *file)
{
    HY3_TRY(put_zero(t, json, file));
    for (size_t i = 0; i < json->count; i++)
        HY3_TRY(take(t, json, &json->items[i], file));
    return HY3_OK;
}

static hy3_status read_file(struct hy3_translation *t, const struct hy3_setting *s)
{
    hy3_status status = HY3_OK;
    struct hy3_settings json = {0};
    char path[HY3_PATH_MAX], why[HY3_PATH_WHY], *text = NULL;
    int before = t->problems->count;
    size_t size = 0;

    HY3_TRY_DONE(hy3_find_input(t, t->path, hy3_setting_text(s), NULL, path));
    if (hy3_path_fault(path, HY3_PATH_FILE, why, sizeof why)) {
        hy3_problem(t->problems, s->where, "deepspeed: '%.300s' %s", path, why);
        return HY3_OK;
    }
    HY3_TRY_DONE(hy3_file_read(path, FILE_LIMIT, &text, &size));
    HY3_TRY_DONE(hy3_json_settings(text, size, path, "", &json, t->problems));
    if (t->problems->count == before)
        status = translate(t, &json, path);
done:
    hy3_settings_free(&json);
    hy3_free(text);
    return status;
}

/* The JSON itself. */
static hy3_status read_text(struct hy3_translation *t, const struct hy3_setting *s)
{
    hy3_status status = HY3_OK;
    const char *text = hy3_setting_text(s);
    struct hy3_settings json = {0};
    struct hy3_problems found = {0};

    HY3_TRY_DONE(hy3_json_settings(text, strlen(text), s->where, "", &json, &found));
    if (found.count > 0)
        hy3_problem(t->problems, s->where, "%s = %.100s: it is not valid JSON", s->key, text);
    HY3_TRY_DONE(hy3_settings_place(&json, s->where));
    if (found.count == 0)
        status = translate(t, &json, t->path ? t->path : "deepspeed");
done:
    hy3_settings_free(&json);
    return status;
}

/* The presets of ms-swift (its trainers, ds_config/). */
static hy3_status take_preset(struct hy3_translation *t, const struct hy3_setting *s, bool *found)
{
    static const struct {
        const char *name, *offload;
        int stage;
    } presets[] = {
        {"zero0", NULL, 0}, {"zero1", NULL, 1},
        {"zero2", NULL, 2}, {"zero2_offload", "optimizer", 2},
        {"zero3", NULL, 3}, {"zero3_offload", "full", 3},
    };

    *found = false;
    for (size_t i = 0; i < sizeof presets / sizeof *presets && !*found; i++) {
        if (strcmp(presets[i].name, hy3_setting_text(s)) != 0)
            continue;
        *found = true;
        HY3_TRY(hy3_put_number(t, s, "zero_stage", presets[i].stage));
        if (presets[i].offload)
            HY3_TRY(hy3_put_text(t, s, "offload", presets[i].offload));
    }
    return HY3_OK;
}

/* The map in the file itself: its keys without what stands before them. */
static hy3_status read_map(struct hy3_translation *t, bool *found)
{
    hy3_status status = HY3_OK;
    struct hy3_settings json = {0};

    for (size_t i = 0; i < t->given->count; i++) {
        const struct hy3_setting *s = &t->given->items[i];
        struct hy3_setting *copy;

        if (strncmp(s->key, prefix, sizeof prefix - 1) != 0 || s->type == HY3_VALUE_NULL)
            continue;
        HY3_TRY_DONE(hy3_settings_copy(&json, s->key + sizeof prefix - 1, s, &copy));
    }
    *found = json.count > 0;
    if (*found)
        status = translate(t, &json, t->path ? t->path : "deepspeed");
done:
    hy3_settings_free(&json);
    return status;
}

hy3_status hy3_translate_deepspeed(struct hy3_translation *t)
{
    const struct hy3_setting *s = hy3_theirs(t, "deepspeed");
    bool found;

    HY3_TRY(read_map(t, &found));
    s = s ? s : hy3_theirs(t, "deepspeed_config");
    if (found && s && !hy3_is_off(s))
        hy3_problem(t->problems, s->where,
                    "deepspeed is a file, and keys of it are given as deepspeed.KEY; write them "
                    "into the file");
    if (found || !s || hy3_is_off(s))
        return HY3_OK;
    if (!hy3_setting_text(s)) {
        hy3_problem(t->problems, s->where, "deepspeed is a list; it must be a file");
        return HY3_OK;
    }
    if (hy3_setting_text(s)[strspn(hy3_setting_text(s), " \t\r\n")] == '{')
        return read_text(t, s);
    if (t->origin == HY3_MS_SWIFT)
        HY3_TRY(take_preset(t, s, &found));
    return found ? HY3_OK : read_file(t, s);
}
