/* SPDX-License-Identifier: Apache-2.0 */
/* translate.c - each setting by its entry of the table, then the defaults. */
#include "config/foreign/translate.h"

#include "base/memory.h"
#include "config/assign.h"
#include "config/foreign/translation.h"
#include "config/foreign/yaml.h"

#include <stdlib.h>

enum {
    UNUSED_SHOWN = 3000, /* bytes of the line of unused keys */
    NEAREST_MAX = 64     /* problems, of which fewer are shown */
};

enum hy3_origin hy3_origin_of(const struct hy3_settings *given)
{
    static const char *const swift[] = {"model", "tuner_type", "train_type", "tuner_backend"};

    for (size_t i = 0; i < given->count; i++)
        for (size_t k = 0; k < sizeof swift / sizeof *swift; k++)
            if (strcmp(given->items[i].key, swift[k]) == 0)
                return HY3_MS_SWIFT;
    return HY3_LLAMA_FACTORY;
}

/* Our key that theirs becomes and that nothing else of theirs has a part in, NULL if there is none;
 * of a key of ours itself, it. */
static const char *target(enum hy3_origin origin, const char *key)
{
    const struct hy3_foreign_key *k = hy3_foreign_find(origin, key);
    const struct hy3_option *o = hy3_option_find(hy3_options, k && k->to ? k->to : key);

    if (!o || (k && k->kind != HY3_FOREIGN_MAPPED))
        return NULL;
    return !k || k->how < HY3_HOW_PART ? o->key : NULL;
}

/* Whether `key` is in the map `map`, by their names. */
static bool is_in(const char *key, const char *map)
{
    size_t length = strlen(map);

    return strncmp(key, map, length) == 0 && key[length] == '.';
}

/* Whether a file's setting gives way to an argument: to one of the same meaning, to a whole map, or
 * to a key of the map that it has as text. */
static bool is_replaced(enum hy3_origin origin, const struct hy3_setting *by,
                        const struct hy3_setting *s)
{
    const char *a = target(origin, by->key), *b = target(origin, s->key);
    const struct hy3_foreign_key *k = hy3_foreign_find(origin, s->key);

    if (strcmp(by->key, s->key) == 0 || is_in(s->key, by->key))
        return true;
    if (k && k->how == HY3_HOW_UNDER_PREFIX && is_in(by->key, s->key))
        return true;
    return a && b && strcmp(a, b) == 0;
}

/* "[a, b]" of a flag is a list. */
static hy3_status copy_list(struct hy3_setting *to, const char *text)
{
    bool valid;

    to->type = HY3_VALUE_LIST;
    HY3_TRY(hy3_word_split(text, &to->texts, &valid));
    if (!valid)
        to->type = HY3_VALUE_MIXED;
    return HY3_OK;
}

hy3_status hy3_foreign_take_flags(struct hy3_settings *given, const struct hy3_settings *flags)
{
    for (size_t i = 0; i < flags->count; i++) {
        const struct hy3_setting *s = &flags->items[i];
        struct hy3_setting *copy;

        if (s->type == HY3_VALUE_WORD && s->texts.items[0][0] == '[') {
            HY3_TRY(hy3_settings_add(given, s->key, s->where, &copy));
            HY3_TRY(copy_list(copy, s->texts.items[0]));
            continue;
        }
        HY3_TRY(hy3_settings_copy(given, s->key, s, &copy));
        if (copy->type == HY3_VALUE_WORD && hy3_scalar_is_null(copy->texts.items[0]))
            copy->type = HY3_VALUE_NULL;
    }
    return HY3_OK;
}

/* Whether the text begins as no plain scalar does: quoted, a list, a map, a tag. */
static bool is_marked(const char *text)
{
    return *text != '\0' && strchr("'\"[{!", *text);
}

/* The value of an argument as YAML has it; what is none, such as "a: b", is the text itself. */
static hy3_status read_value(const struct hy3_setting *s, struct hy3_settings *out,
                             struct hy3_problems *problems)
{
    hy3_status status = HY3_OK;
    const char *text = s->texts.items[0];
    size_t size = strlen(s->key) + strlen(text) + 4;
    struct hy3_problems found = {0};
    struct hy3_setting *copy;
    char *document = NULL;

    HY3_TRY_DONE(hy3_alloc(&document, size, 1));
    snprintf(document, size, "%s: %s\n", s->key, text);
    if (is_marked(text) || !strchr(text, '\n'))
        HY3_TRY_DONE(hy3_yaml_read(document, strlen(document), "", out, &found));
    if (found.count > 0 && is_marked(text))
        hy3_problem(problems, s->where, "the value is not valid YAML");
    if (found.count > 0 || out->count == 0) {
        hy3_settings_free(out);
        HY3_TRY_DONE(hy3_settings_copy(out, s->key, s, &copy));
    }
    status = hy3_settings_place(out, s->where);
done:
    hy3_free(document);
    return status;
}

static hy3_status override(enum hy3_origin origin, struct hy3_settings *given,
                           const struct hy3_setting *by)
{
    struct hy3_setting *copy;

    for (size_t i = 0; i < given->count; i++)
        if (is_replaced(origin, by, &given->items[i]))
            given->items[i].type = HY3_VALUE_NULL;
    return hy3_settings_copy(given, by->key, by, &copy);
}

hy3_status hy3_foreign_override(enum hy3_origin origin, struct hy3_settings *given,
                                const struct hy3_settings *overrides, struct hy3_problems *problems)
{
    hy3_status status = HY3_OK;
    struct hy3_settings values = {0};

    for (size_t o = 0; o < overrides->count; o++) {
        HY3_TRY_DONE(read_value(&overrides->items[o], &values, problems));
        for (size_t i = 0; i < values.count; i++)
            HY3_TRY_DONE(override(origin, given, &values.items[i]));
        hy3_settings_free(&values);
    }
done:
    hy3_settings_free(&values);
    return status;
}

void hy3_foreign_settle_nulls(enum hy3_origin origin, struct hy3_settings *given)
{
    for (size_t i = 0; origin == HY3_MS_SWIFT && i < given->count; i++)
        if (given->items[i].type == HY3_VALUE_WORD &&
            strcmp(given->items[i].texts.items[0], "None") == 0)
            given->items[i].type = HY3_VALUE_NULL;
}

bool hy3_is_same_scalar(const char *a, const char *b)
{
    struct hy3_scalar_number x, y;
    bool s, t;

    if (hy3_scalar_number(a, true, &x) && hy3_scalar_number(b, true, &y))
        return x.real == y.real;
    if (hy3_scalar_truth(a, &s) && hy3_scalar_truth(b, &t))
        return s == t;
    return strcasecmp(a, b) == 0;
}

static bool is_among(const char *values, const char *text)
{
    const char *word;
    size_t length;

    while (values && (word = hy3_option_word(&values, &length))) {
        char value[64];

        snprintf(value, sizeof value, "%.*s", (int)length, word);
        if (hy3_is_same_scalar(value, text))
            return true;
    }
    return false;
}

/* The name in front of the first dot: what the file's map is called. */
static void map_name(const char *key, char out[64])
{
    snprintf(out, 64, "%.*s", (int)strcspn(key, "."), key);
}

/* Whether an argument beside the file names a choice that hy3 has under the same key. */
static bool is_our_choice(const struct hy3_setting *s)
{
    const struct hy3_option *o = hy3_option_find(hy3_options, s->key);
    const char *text = hy3_setting_text(s);

    if (!o || o->type != HY3_CHOICE || !text || strncmp(s->where, "argument '", 10) != 0)
        return false;
    for (int i = 0; o->words[i]; i++)
        if (strcmp(o->words[i], text) == 0)
            return true;
    return false;
}

static hy3_status check(struct hy3_translation *t, const struct hy3_foreign_key *k,
                        const struct hy3_setting *s)
{
    const char *text = hy3_setting_text(s);

    if (is_our_choice(s))
        return hy3_put_plain(t, s, s->key, NULL);
    if (hy3_is_off(s) && is_among(k->values, "0"))
        return HY3_OK;
    if (text && is_among(k->values, text))
        return k->how == HY3_HOW_NAMED ? hy3_note_unused(t, s->key) : HY3_OK;
    hy3_problem(t->problems, s->where, "%.64s%s%.64s is not available: %s", s->key,
                text ? " = " : "", text ? text : "", k->note);
    return HY3_OK;
}

bool hy3_is_off(const struct hy3_setting *s)
{
    const char *text = hy3_setting_text(s);

    if (s->type == HY3_VALUE_LIST && s->texts.count == 0)
        return true;
    return text && (is_among("false 0 none no", text) || *text == '\0');
}

static hy3_status refuse_unknown(struct hy3_translation *t, const struct hy3_setting *s)
{
    const char *tolerant = getenv("ALLOW_EXTRA_ARGS"), *nearest;
    bool truth = false;

    if (t->origin == HY3_LLAMA_FACTORY && tolerant && hy3_scalar_truth(tolerant, &truth) && truth)
        return hy3_note_unused(t, s->key);
    nearest = t->problems->count < NEAREST_MAX ? hy3_foreign_nearest(t->origin, s->key) : NULL;
    if (nearest)
        hy3_problem(t->problems, s->where, "unknown key '%.64s'; did you mean '%s'?", s->key,
                    nearest);
    else
        hy3_problem(t->problems, s->where, "unknown key '%.64s': neither %s nor hy3 has it", s->key,
                    hy3_origin_name(t->origin));
    return HY3_OK;
}

/* Whether it is a quoted nothing for a number, a choice or the modules of an adapter: those tools
 * refuse it, and hy3 would take it as a wish for its own default. Of some keys it means off. */
static bool is_empty(const struct hy3_foreign_key *k, const struct hy3_setting *s)
{
    static const enum hy3_foreign_how offs[] = {HY3_HOW_DEEPSPEED, HY3_HOW_FSDP, HY3_HOW_REPORT,
                                                HY3_HOW_PARAMETERS};
    const struct hy3_option *o = hy3_option_find(hy3_options, k->to ? k->to : s->key);

    for (size_t i = 0; i < sizeof offs / sizeof *offs; i++)
        if (k->how == offs[i])
            return false;
    return o && s->texts.count == 1 && s->texts.items[0][0] == '\0' && o->type != HY3_TEXT &&
           (o->type != HY3_LIST || strcmp(o->key, "lora_target") == 0);
}

hy3_status hy3_translate_setting(struct hy3_translation *t, const struct hy3_setting *s)
{
    const struct hy3_foreign_key *k = hy3_foreign_find(t->origin, s->key);
    char map[64];

    map_name(s->key, map);
    if (!k && strchr(s->key, '.')) {
        k = hy3_foreign_find(t->origin, map);
        k = k && k->kind != HY3_FOREIGN_MAPPED ? k : NULL;
    }
    if (!k && hy3_option_find(hy3_options, s->key))
        return s->type == HY3_VALUE_NULL ? HY3_OK : hy3_put_plain(t, s, s->key, NULL);
    if (!k)
        return refuse_unknown(t, s);
    if (k->kind == HY3_FOREIGN_UNUSED)
        return hy3_note_unused(t, map);
    if (s->type == HY3_VALUE_NULL || k->kind == HY3_FOREIGN_SILENT)
        return HY3_OK;
    if (k->kind == HY3_FOREIGN_CHECKED)
        return check(t, k, s);
    if (k->kind == HY3_FOREIGN_REFUSED) {
        if (!hy3_is_off(s) && !(hy3_setting_text(s) && is_among(k->values, hy3_setting_text(s))))
            hy3_problem(t->problems, s->where, "%.64s is not available, and changes the result: %s",
                        s->key, k->note);
        return HY3_OK;
    }
    if (is_empty(k, s)) {
        hy3_problem(t->problems, s->where, "'%.64s' is empty; leave it out for %s's default",
                    s->key, hy3_origin_name(t->origin));
        return HY3_OK;
    }
    if (k->how == HY3_HOW_PLAIN)
        return hy3_put_plain(t, s, k->to ? k->to : s->key, k->values);
    return hy3_translate_special(t, k, s);
}

/* One line that names them all, the keys alone: some are secrets. */
static hy3_status note_unused(struct hy3_translation *t)
{
    char line[UNUSED_SHOWN] = "";
    size_t used = 0;

    for (int i = 0; i < t->unused.count && used < sizeof line; i++)
        used += (size_t)snprintf(line + used, sizeof line - used, "%s%s", i > 0 ? ", " : "",
                                 t->unused.items[i]);
    return used > 0 ? hy3_note(t, "not used here: %s", line) : HY3_OK;
}

/* Whether the finetuning_type, which the defaults name first, is lora. */
static bool trains_adapter(const struct hy3_translation *t)
{
    const char *type = hy3_ours_text(t, "finetuning_type");

    return type && strcmp(type, "lora") == 0;
}

/* The tool's own defaults, for keys that nobody gave. */
static hy3_status add_defaults(struct hy3_translation *t)
{
    for (const struct hy3_foreign_default *d = hy3_foreign_defaults; d->key; d++) {
        const struct hy3_setting initial = {
            .type = HY3_VALUE_WORD,
            .texts = {.items = (char *[]){(char *)(uintptr_t)d->value}, .count = 1}};

        if (!(d->origins & t->origin) || hy3_ours(t, d->key))
            continue;
        if (strncmp(d->key, "lora_", 5) == 0 && !trains_adapter(t))
            continue;
        if (strcmp(d->key, "dataset_dir") == 0 && !hy3_ours(t, "dataset") &&
            !hy3_ours(t, "eval_dataset"))
            continue;
        HY3_TRY(hy3_put_plain(t, &initial, d->key, NULL));
    }
    return HY3_OK;
}

hy3_status hy3_foreign_translate(enum hy3_origin origin, const char *path,
                                 const struct hy3_settings *given, struct hy3_settings *ours,
                                 int ranks, struct hy3_list *notes, struct hy3_problems *problems)
{
    hy3_status status = HY3_OK;
    struct hy3_translation t = {.origin = origin,
                                .path = path,
                                .given = given,
                                .ours = ours,
                                .notes = notes,
                                .ranks = ranks,
                                .problems = problems};

    HY3_TRY_DONE(hy3_note(&t, "%s%sread as the %s of %s", path ? path : "", path ? " is " : "",
                          path ? "configuration" : "flags", hy3_origin_name(origin)));
    for (size_t i = 0; i < given->count; i++)
        if (strncmp(given->items[i].key, "deepspeed.", 10) != 0)
            HY3_TRY_DONE(hy3_translate_setting(&t, &given->items[i]));
    HY3_TRY_DONE(hy3_translate_rest(&t));
    HY3_TRY_DONE(hy3_translate_deepspeed(&t));
    HY3_TRY_DONE(add_defaults(&t));
    HY3_TRY_DONE(note_unused(&t));
    if (origin != HY3_TRAIN_PY)
        HY3_TRY_DONE(hy3_note(&t,
                              "prompts are rendered with the model's own chat template: token "
                              "ids differ from those of %s",
                              hy3_origin_name(origin)));
done:
    hy3_list_free(&t.unused);
    return status;
}
