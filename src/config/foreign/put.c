/* SPDX-License-Identifier: Apache-2.0 */
/* put.c - settings of ours, made of theirs. */
#include "base/file.h"
#include "base/memory.h"
#include "config/foreign/translation.h"

#include <libgen.h>
#include <math.h>
#include <stdarg.h>

const struct hy3_setting *hy3_theirs(const struct hy3_translation *t, const char *key)
{
    for (size_t i = t->given->count; i-- > 0;)
        if (strcmp(t->given->items[i].key, key) == 0 && t->given->items[i].type != HY3_VALUE_NULL)
            return &t->given->items[i];
    return NULL;
}

const struct hy3_setting *hy3_ours(const struct hy3_translation *t, const char *key)
{
    for (size_t i = 0; i < t->ours->count; i++)
        if (strcmp(t->ours->items[i].key, key) == 0)
            return &t->ours->items[i];
    return NULL;
}

const char *hy3_setting_text(const struct hy3_setting *s)
{
    return s->type == HY3_VALUE_WORD ? s->texts.items[0] : NULL;
}

const char *hy3_ours_text(const struct hy3_translation *t, const char *key)
{
    const struct hy3_setting *s = hy3_ours(t, key);

    return s && s->texts.count > 0 ? s->texts.items[0] : NULL;
}

/* The place of theirs, with their name of the key where ours is another. */
static hy3_status add(struct hy3_translation *t, const struct hy3_setting *theirs, const char *key,
                      enum hy3_value_type type, struct hy3_setting **out)
{
    const struct hy3_option *o = hy3_option_find(hy3_options, key);
    const char *place = theirs && theirs->where ? theirs->where : "";
    char where[640];

    if (theirs && theirs->key && strcmp(theirs->key, key) != 0)
        snprintf(where, sizeof where, "%s (%.64s)", place, theirs->key);
    else
        snprintf(where, sizeof where, "%s", place);
    HY3_TRY(hy3_settings_add(t->ours, o ? o->key : key, where, out));
    (*out)->type = type;
    return HY3_OK;
}

hy3_status hy3_put_text(struct hy3_translation *t, const struct hy3_setting *theirs,
                        const char *key, const char *text)
{
    struct hy3_setting *s;

    HY3_TRY(add(t, theirs, key, HY3_VALUE_TEXT, &s));
    return hy3_list_add(&s->texts, text, strlen(text));
}

hy3_status hy3_put_truth(struct hy3_translation *t, const struct hy3_setting *theirs,
                         const char *key, bool truth)
{
    struct hy3_setting *s;

    HY3_TRY(add(t, theirs, key, HY3_VALUE_BOOL, &s));
    s->truth = truth;
    return HY3_OK;
}

hy3_status hy3_put_number(struct hy3_translation *t, const struct hy3_setting *theirs,
                          const char *key, double value)
{
    struct hy3_setting *s;
    bool is_whole = floor(value) == value && fabs(value) < 0x1p53;

    HY3_TRY(add(t, theirs, key, is_whole ? HY3_VALUE_INT : HY3_VALUE_REAL, &s));
    s->real = value;
    s->integer = is_whole ? (int64_t)value : 0;
    return HY3_OK;
}

hy3_status hy3_put_list(struct hy3_translation *t, const struct hy3_setting *theirs,
                        const char *key, const struct hy3_list *texts)
{
    struct hy3_setting *s;

    HY3_TRY(add(t, theirs, key, HY3_VALUE_LIST, &s));
    return hy3_list_copy(&s->texts, texts);
}

hy3_status hy3_split_texts(const struct hy3_setting *s, struct hy3_list *texts)
{
    const char *text = hy3_setting_text(s);

    *texts = (struct hy3_list){0};
    if (s->type == HY3_VALUE_LIST)
        return hy3_list_copy(texts, &s->texts);
    while (text && *text) {
        size_t length, used;

        text += strspn(text, " \n");
        used = length = strcspn(text, ",");
        while (used > 0 && strchr(" \n", text[used - 1]))
            used--;
        if (used > 0)
            HY3_TRY(hy3_list_add(texts, text, used));
        text += length + (text[length] == ',');
    }
    return HY3_OK;
}

void hy3_drop_ours(struct hy3_translation *t, const char *key)
{
    struct hy3_setting *s = (struct hy3_setting *)(uintptr_t)hy3_ours(t, key);
    struct hy3_setting *end = t->ours->items + t->ours->count;

    if (!s)
        return;
    hy3_free(s->key);
    hy3_free(s->where);
    hy3_list_free(&s->texts);
    memmove(s, s + 1, (size_t)(end - s - 1) * sizeof *s);
    end[-1] = (struct hy3_setting){0};
    t->ours->count--;
}

/* Our word for theirs in "theirs=ours …"; theirs where there is none. */
static const char *map_word(const char *values, const char *text, char out[64])
{
    const char *word;
    size_t length;

    while (values && (word = hy3_option_word(&values, &length))) {
        size_t equals = strcspn(word, "=");

        if (strlen(text) != equals || memcmp(word, text, equals) != 0)
            continue;
        snprintf(out, 64, "%.*s", (int)(length - equals - 1), word + equals + 1);
        return out;
    }
    return text;
}

/* Whether 0 is the default of a number: it switches something off, as false does. */
static bool is_off_by_default(const struct hy3_option *o)
{
    return o->type == HY3_COUNT ? o->count.initial == 0 && !o->count.automatic
                                : o->real.initial == 0;
}

/* Whatever is no number is left to the refusal of our option. */
static hy3_status put_number_text(struct hy3_translation *t, const struct hy3_setting *theirs,
                                  const char *key, const char *text)
{
    struct hy3_scalar_number number;
    bool truth;

    if (is_off_by_default(hy3_option_find(hy3_options, key)) && hy3_scalar_truth(text, &truth) &&
        !truth)
        return hy3_put_number(t, theirs, key, 0);
    if (!hy3_scalar_number(text, t->path != NULL, &number))
        return hy3_put_text(t, theirs, key, text);
    return hy3_put_number(t, theirs, key, number.real);
}

hy3_status hy3_put_plain(struct hy3_translation *t, const struct hy3_setting *theirs,
                         const char *key, const char *values)
{
    hy3_status status = HY3_OK;
    const struct hy3_option *o = hy3_option_find(hy3_options, key);
    const char *text = hy3_setting_text(theirs);
    struct hy3_list texts = {0};
    struct hy3_setting *s;
    char word[64];
    bool truth;

    if (o->type == HY3_LIST && theirs->type != HY3_VALUE_MIXED) {
        HY3_TRY_DONE(hy3_split_texts(theirs, &texts));
        status = hy3_put_list(t, theirs, key, &texts);
    } else if (!text) {
        status = add(t, theirs, key, HY3_VALUE_MIXED, &s);
    } else if (o->type == HY3_BOOL && hy3_scalar_truth(text, &truth)) {
        status = hy3_put_truth(t, theirs, key, truth);
    } else if (o->type == HY3_COUNT || o->type == HY3_REAL) {
        status = put_number_text(t, theirs, key, text);
    } else {
        status = hy3_put_text(t, theirs, key, map_word(values, text, word));
    }
done:
    hy3_list_free(&texts);
    return status;
}

hy3_status hy3_note(struct hy3_translation *t, const char *format, ...)
{
    char line[4096];
    va_list args;

    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    return hy3_list_add(t->notes, line, strlen(line));
}

hy3_status hy3_note_unused(struct hy3_translation *t, const char *name)
{
    for (int i = 0; i < t->unused.count; i++)
        if (strcmp(t->unused.items[i], name) == 0)
            return HY3_OK;
    return hy3_list_add(&t->unused, name, strlen(name));
}

/* Whether the path is there, with `inside` in it. */
static bool is_there(const char *path, const char *inside)
{
    return inside ? hy3_path_exists_in(path, inside) : hy3_path_exists(path);
}

hy3_status hy3_find_input(struct hy3_translation *t, const char *from, const char *path,
                          const char *inside, char out[HY3_PATH_MAX])
{
    char directory[HY3_PATH_MAX], beside[HY3_PATH_MAX];

    HY3_TRY(hy3_path_format(out, HY3_PATH_MAX, "%s", path));
    if (!from || path[0] == '/' || is_there(path, inside))
        return HY3_OK;
    HY3_TRY(hy3_path_format(directory, sizeof directory, "%s", from));
    if (hy3_path_format(beside, sizeof beside, "%s/%s", dirname(directory), path) != HY3_OK ||
        !is_there(beside, inside))
        return HY3_OK;
    HY3_TRY(hy3_path_format(out, HY3_PATH_MAX, "%s", beside));
    return hy3_note(t,
                    "'%s' is not in the working directory; '%s', beside the file that names it, "
                    "is used",
                    path, beside);
}
