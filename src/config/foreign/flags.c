/* SPDX-License-Identifier: Apache-2.0 */
/* flags.c - words of a command line to settings. */
#include "config/foreign/flags.h"

#include "config/foreign/scalar.h"
#include "config/options.h"

#include <ctype.h>

enum { NAME_MAX_BYTES = 128 };

/* The name of "--some-key=value" with underscores; false if the word is none. */
static bool name_of(const char *word, char out[NAME_MAX_BYTES])
{
    size_t length;

    if (strncmp(word, "--", 2) != 0 || !isalpha((unsigned char)word[2]))
        return false;
    length = strcspn(word + 2, "=");
    if (length >= NAME_MAX_BYTES)
        return false;
    for (size_t i = 0; i < length; i++)
        out[i] = (char)(word[2 + i] == '-' ? '_' : word[2 + i]);
    out[length] = '\0';
    return true;
}

static bool is_key_of(enum hy3_origin origin, const char *name)
{
    return hy3_foreign_find(origin, name) || hy3_option_find(hy3_options, name);
}

bool hy3_flags_is_pair(enum hy3_origin origin, const char *word)
{
    char key[NAME_MAX_BYTES];
    size_t length = strcspn(word, "=");

    if (word[length] != '=' || length >= sizeof key)
        return false;
    memcpy(key, word, length);
    key[length] = '\0';
    if (is_key_of(origin, key))
        return true;
    key[strcspn(key, ".")] = '\0'; /* a key of a map */
    return strlen(key) < length && is_key_of(origin, key);
}

bool hy3_flags_find(int argc, char **argv, enum hy3_origin *origin)
{
    bool found = false;
    char name[NAME_MAX_BYTES];

    *origin = HY3_TRAIN_PY;
    for (int i = 1; i < argc; i++) {
        if (!name_of(argv[i], name))
            continue;
        found = found || strcmp(name, "model") == 0 || strcmp(name, "model_name_or_path") == 0;
        if (strcmp(name, "model") == 0)
            *origin = HY3_MS_SWIFT;
        else if (*origin == HY3_TRAIN_PY &&
                 (strcmp(name, "stage") == 0 || strcmp(name, "dataset") == 0))
            *origin = HY3_LLAMA_FACTORY;
    }
    return found;
}

/* Whether the word is a value: negative numbers are. */
static bool is_value(const char *word)
{
    struct hy3_scalar_number number;

    return word[0] != '-' || word[1] == '\0' || hy3_scalar_number(word, false, &number);
}

/* Whether the key takes no value but a truth: in the table those that are ours tell, of the others
 * nothing is known. */
static bool is_truth_key(enum hy3_origin origin, const char *name)
{
    const struct hy3_foreign_key *k = hy3_foreign_find(origin, name);
    const struct hy3_option *o = hy3_option_find(hy3_options, k && k->to ? k->to : name);

    if (k && k->kind != HY3_FOREIGN_MAPPED)
        return true; /* may be one */
    return (o && o->type == HY3_BOOL) ||
           (k && (k->how == HY3_HOW_LORA_FLAG || k->how == HY3_HOW_ATTENTION ||
                  k->how == HY3_HOW_FLASH_FLAG || k->how == HY3_HOW_RESUME ||
                  k->how == HY3_HOW_SWANLAB || k->how == HY3_HOW_MODEL));
}

/* Whether the key means nothing here: nobody knows whether it takes a value. */
static bool is_unused(enum hy3_origin origin, const char *name)
{
    const struct hy3_foreign_key *k = hy3_foreign_find(origin, name);

    return k && k->kind == HY3_FOREIGN_UNUSED;
}

/* Whether the key has one value, whatever stands behind its flag. */
static bool takes_one(enum hy3_origin origin, const char *name)
{
    const struct hy3_foreign_key *k = hy3_foreign_find(origin, name);
    const struct hy3_option *o = hy3_option_find(hy3_options, k && k->to ? k->to : name);

    return o && o->type != HY3_LIST && o->type != HY3_SET &&
           (!k || (k->kind == HY3_FOREIGN_MAPPED && k->how == HY3_HOW_PLAIN));
}

static hy3_status add(struct hy3_settings *settings, const char *name, const char *where,
                      struct hy3_setting **out)
{
    for (size_t i = 0; i < settings->count; i++)
        if (strcmp(settings->items[i].key, name) == 0)
            settings->items[i].type = HY3_VALUE_NULL; /* the last one counts */
    return hy3_settings_add(settings, name, where, out);
}

hy3_status hy3_flag_read(enum hy3_origin origin, int argc, char **argv, int *i,
                         struct hy3_settings *settings, struct hy3_problems *problems)
{
    const char *word = argv[*i], *equals = strchr(word, '=');
    char name[NAME_MAX_BYTES], where[NAME_MAX_BYTES + 16];
    bool is_negated;
    struct hy3_setting *s;

    if (!name_of(word, name)) {
        hy3_problem(problems, "", "'%.120s' is no flag, and behind no flag that takes values",
                    word);
        return HY3_OK;
    }
    is_negated =
        !is_key_of(origin, name) && strncmp(name, "no_", 3) == 0 && is_key_of(origin, name + 3);
    snprintf(where, sizeof where, "--%s", name);
    HY3_TRY(add(settings, is_negated ? name + 3 : name, where, &s));
    s->type = HY3_VALUE_WORD;
    if (equals)
        return hy3_list_add(&s->texts, equals + 1, strlen(equals + 1));
    if (*i + 1 < argc && is_unused(origin, name) && hy3_flags_is_pair(origin, argv[*i + 1]))
        hy3_problem(
            problems, "",
            "'%s %.120s': write %s=%.120s if that is its value, or put the argument in front "
            "of it",
            where, argv[*i + 1], where, argv[*i + 1]);
    while (!is_negated && *i + 1 < argc && is_value(argv[*i + 1])) {
        if (hy3_flags_is_pair(origin, argv[*i + 1]) &&
            (s->texts.count > 0 || is_truth_key(origin, name)))
            break;
        ++*i;
        HY3_TRY(hy3_list_add(&s->texts, argv[*i], strlen(argv[*i])));
    }
    if (s->texts.count > 1 && takes_one(origin, name))
        hy3_problem(problems, "", "'%s' takes one value, and '%.120s' follows it", where,
                    s->texts.items[1]);
    else if (s->texts.count > 1)
        s->type = HY3_VALUE_LIST;
    if (s->texts.count == 0 && !is_negated && !is_truth_key(origin, name))
        hy3_problem(problems, "", "'%s' needs a value", where);
    if (s->texts.count == 0)
        return hy3_list_add(&s->texts, is_negated ? "false" : "true", is_negated ? 5 : 4);
    return HY3_OK;
}
