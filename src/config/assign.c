/* SPDX-License-Identifier: Apache-2.0 */
/* assign.c - from a setting to a field. */
#include "config/assign.h"

#include "base/file.h"
#include "base/memory.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <strings.h>

static hy3_status set_text(char **field, const char *text)
{
    char *copy;

    HY3_TRY(hy3_strdup(text, &copy));
    hy3_free(*field);
    *field = copy;
    return HY3_OK;
}

static hy3_status split_words(const char *words, struct hy3_list *list)
{
    const char *word;
    size_t length;

    while ((word = hy3_option_word(&words, &length)))
        HY3_TRY(hy3_list_add(list, word, length));
    return HY3_OK;
}

/* The field is zero or holds a value of its type. */
static hy3_status set_default(const struct hy3_option *o, struct hy3_config *config)
{
    void *field = hy3_option_field(o, config);
    char **text = field;

    switch (o->type) {
    case HY3_BOOL:
        *(bool *)field = o->truth;
        return HY3_OK;
    case HY3_COUNT:
        *(int64_t *)field = o->count.initial;
        return HY3_OK;
    case HY3_REAL:
        *(double *)field = o->real.initial;
        return HY3_OK;
    case HY3_LIST:
        hy3_list_free(field);
        return o->text ? split_words(o->text, field) : HY3_OK;
    case HY3_CHOICE:
        *(int *)field = 0;
        return HY3_OK;
    case HY3_SET:
        *(int64_t *)field = 0;
        return HY3_OK;
    case HY3_TEXT:
    case HY3_SIZE:
        if (o->text)
            return set_text(text, o->text);
        hy3_free(*text);
        *text = NULL;
        return HY3_OK;
    default:
        return HY3_OK;
    }
}

hy3_status hy3_config_defaults(struct hy3_config *config)
{
    hy3_config_free(config);
    for (const struct hy3_option *o = hy3_options; o->key; o++)
        HY3_TRY(set_default(o, config));
    return HY3_OK;
}

void hy3_config_free(struct hy3_config *config)
{
    for (const struct hy3_option *o = hy3_options; o->key; o++) {
        void *field = hy3_option_field(o, config);

        if (o->type == HY3_TEXT || o->type == HY3_SIZE)
            hy3_free(*(char **)field);
        else if (o->type == HY3_LIST)
            hy3_list_free(field);
    }
    *config = (struct hy3_config){0};
}

/* What the setting says, for a message. */
static void show(const struct hy3_setting *s, char *out, size_t size)
{
    switch (s->type) {
    case HY3_VALUE_BOOL:
        snprintf(out, size, "%s", s->truth ? "true" : "false");
        return;
    case HY3_VALUE_INT:
        snprintf(out, size, "%" PRId64, s->integer);
        return;
    case HY3_VALUE_REAL:
        snprintf(out, size, floor(s->real) == s->real && fabs(s->real) < 1e6 ? "%.1f" : "%g",
                 s->real);
        return;
    case HY3_VALUE_WORD:
        snprintf(out, size, "%.80s", *s->texts.items[0] ? s->texts.items[0] : "empty");
        return;
    case HY3_VALUE_TEXT:
        snprintf(out, size, "\"%.80s\"", s->texts.items[0]);
        return;
    default:
        snprintf(out, size, "a list");
    }
}

static void refuse(const struct hy3_option *o, const struct hy3_setting *s,
                   struct hy3_problems *problems)
{
    char must[256], is[128];

    hy3_option_describe(o, must, sizeof must);
    show(s, is, sizeof is);
    for (int i = 0; i < s->texts.count; i++)
        if (strlen(s->texts.items[i]) >= HY3_PATH_MAX) {
            hy3_problem(problems, s->where, "'%s' is too long: %zu bytes, at most %d", o->key,
                        strlen(s->texts.items[i]), HY3_PATH_MAX - 1);
            return;
        }
    if (o->type == HY3_REAL && strchr(is, ','))
        snprintf(must + strlen(must), sizeof must - strlen(must), ", with a decimal point");
    hy3_problem(problems, s->where, "'%s' is %s; it must be %s", o->key, is, must);
}

static bool get_bool(const struct hy3_setting *s, bool *out)
{
    const char *word = s->type == HY3_VALUE_WORD ? s->texts.items[0] : "";

    *out = s->type == HY3_VALUE_BOOL ? s->truth : strcasecmp(word, "true") == 0;
    return s->type == HY3_VALUE_BOOL || *out || strcasecmp(word, "false") == 0;
}

static bool get_count(const struct hy3_setting *s, int64_t *out)
{
    const char *word = s->type == HY3_VALUE_WORD ? s->texts.items[0] : "";
    char *end;

    *out = s->integer;
    if (s->type == HY3_VALUE_INT)
        return true;
    errno = 0;
    *out = strtoll(word, &end, 10);
    return *word != '\0' && *end == '\0' && errno == 0 &&
           strspn(word, "+-0123456789") == strlen(word);
}

static bool is_auto(const struct hy3_setting *s)
{
    return (s->type == HY3_VALUE_WORD || s->type == HY3_VALUE_TEXT) &&
           strcmp(s->texts.items[0], "auto") == 0;
}

static bool get_real(const struct hy3_setting *s, double *out)
{
    const char *word = s->type == HY3_VALUE_WORD ? s->texts.items[0] : "";
    char *end;

    *out = s->type == HY3_VALUE_INT ? (double)s->integer : s->real;
    if (s->type == HY3_VALUE_INT || s->type == HY3_VALUE_REAL)
        return isfinite(*out);
    *out = strtod(word, &end);
    return *word != '\0' && *end == '\0' && isfinite(*out) &&
           strspn(word, "+-.0123456789eE") == strlen(word);
}

static bool takes_list(const struct hy3_option *o)
{
    return o->type == HY3_LIST || o->type == HY3_SET;
}

/* The texts of the setting, in *own if they had to be made from a word. */
static hy3_status get_texts(const struct hy3_option *o, const struct hy3_setting *s,
                            struct hy3_list *own, const struct hy3_list **out)
{
    bool valid = true;

    *out = NULL;
    if (s->type == HY3_VALUE_WORD) {
        const char *word = s->texts.items[0];

        if (takes_list(o) || *word == '"')
            HY3_TRY(hy3_word_split(word, own, &valid));
        else
            HY3_TRY(hy3_list_add(own, word, strlen(word)));
        *out = own;
    } else if (s->type == HY3_VALUE_TEXT || s->type == HY3_VALUE_LIST) {
        *out = &s->texts;
    }
    if (*out && (!valid || (!takes_list(o) && (s->type == HY3_VALUE_LIST || own->count > 1))))
        *out = NULL;
    return HY3_OK;
}

/* Whether every text may stand in the configuration. */
static bool is_valid(const struct hy3_option *o, const struct hy3_list *texts)
{
    for (int i = 0; i < texts->count; i++) {
        size_t length = strlen(texts->items[i]);
        int64_t bytes;

        if (length == 0 || length >= HY3_PATH_MAX)
            return false;
        if ((o->type == HY3_CHOICE || o->type == HY3_SET) &&
            hy3_option_choice(o, texts->items[i]) < 0)
            return false;
        if (o->type == HY3_SIZE && hy3_config_bytes(texts->items[i], o->key, &bytes) != HY3_OK)
            return false;
    }
    return true;
}

/* The bits of the words; the first word of the option, the empty set, adds none. */
static int64_t set_of(const struct hy3_option *o, const struct hy3_list *texts)
{
    int64_t set = 0;

    for (int i = 0; i < texts->count; i++) {
        int place = hy3_option_choice(o, texts->items[i]);

        set |= place > 0 ? (int64_t)1 << (place - 1) : 0;
    }
    return set;
}

/* Puts valid texts into the field. */
static hy3_status set_texts(const struct hy3_option *o, const struct hy3_list *texts, void *field)
{
    if (o->type == HY3_CHOICE) {
        *(int *)field = hy3_option_choice(o, texts->items[0]);
        return HY3_OK;
    }
    if (o->type == HY3_SET) {
        *(int64_t *)field = set_of(o, texts);
        return HY3_OK;
    }
    if (o->type == HY3_SIZE && o->target)
        return hy3_config_bytes(texts->items[0], o->key, field);
    if (o->type != HY3_LIST)
        return set_text(field, texts->items[0]);
    hy3_list_free(field);
    return hy3_list_copy(field, texts);
}

static hy3_status assign_texts(const struct hy3_option *o, const struct hy3_setting *s,
                               struct hy3_config *config, struct hy3_problems *problems)
{
    hy3_status status = HY3_OK;
    struct hy3_list own = {0};
    const struct hy3_list *texts;
    bool is_empty;

    HY3_TRY_DONE(get_texts(o, s, &own, &texts));
    is_empty = texts && (texts->count == 0 || (texts->count == 1 && texts->items[0][0] == '\0'));
    if (is_empty && !o->target)
        status = set_default(o, config);
    else if (texts && !is_empty && is_valid(o, texts))
        status = set_texts(o, texts, hy3_option_field(o, config));
    else if (texts && !is_empty && o->type == HY3_SIZE && strlen(texts->items[0]) < HY3_PATH_MAX)
        hy3_problem(problems, s->where, "%s", hy3_error_text()); /* of hy3_config_bytes */
    else
        refuse(o, s, problems);
done:
    hy3_list_free(&own);
    return status;
}

/* Whether `value` is in a range whose upper limit 0 is none. */
#define IS_WITHIN(value, range) \
    ((value) >= (range).low && ((range).high == 0 || (value) <= (range).high))

/* Whether the setting is an empty text: whatever the type of its key, that is the default. */
static bool is_empty_text(const struct hy3_setting *s)
{
    return (s->type == HY3_VALUE_WORD || s->type == HY3_VALUE_TEXT) && s->texts.items[0][0] == '\0';
}

/* The Trainer's true and false for resume_from_checkpoint: auto and none. */
static bool is_resume_bool(const struct hy3_option *o, const struct hy3_setting *s, bool *truth)
{
    struct hy3_setting word = *s;

    if (strcmp(o->key, "resume_from_checkpoint") != 0 || s->type == HY3_VALUE_LIST)
        return false;
    if (s->type == HY3_VALUE_TEXT)
        word.type = HY3_VALUE_WORD;
    return get_bool(&word, truth);
}

hy3_status hy3_option_assign(const struct hy3_option *o, const struct hy3_setting *s,
                             struct hy3_config *config, struct hy3_problems *problems)
{
    void *field = hy3_option_field(o, config);
    int64_t count = 0;
    double real = 0;
    bool truth = false, fits;

    if (!o->target && is_empty_text(s))
        return set_default(o, config);
    if (is_resume_bool(o, s, &truth))
        return set_text(field, truth ? "auto" : "none");
    switch (o->type) {
    case HY3_BOOL:
        if ((fits = get_bool(s, &truth)))
            *(bool *)field = truth;
        break;
    case HY3_COUNT:
        if (o->count.automatic && is_auto(s)) {
            *(int64_t *)field = 0;
            return HY3_OK;
        }
        if ((fits = get_count(s, &count) && IS_WITHIN(count, o->count)))
            *(int64_t *)field = count;
        break;
    case HY3_REAL:
        if ((fits = get_real(s, &real) && IS_WITHIN(real, o->real)))
            *(double *)field = real + 0.0; /* no negative zero */
        break;
    default:
        return assign_texts(o, s, config, problems);
    }
    if (!fits)
        refuse(o, s, problems);
    return HY3_OK;
}
