/* SPDX-License-Identifier: Apache-2.0 */
/* interpolate.c - ${key} and ${oc.env:NAME,default} in texts, as OmegaConf resolves them. */
#include "base/memory.h"
#include "config/foreign/scalar.h"
#include "config/foreign/yaml.h"

#include <stdlib.h>

enum { CHAIN_MAX = 8, RESULT_MAX = 64 << 10, RESOLVED_MAX = 10000 };

struct text { /* zero: none; owned, a NUL behind it */
    char *data;
    size_t size, capacity;
};

struct pass {
    const struct hy3_settings *settings;
    const struct hy3_setting *setting; /* whose text is resolved: for messages */
    struct hy3_problems *problems;
    int chain;     /* of texts that name each other */
    int *resolved; /* references so far, of all texts */
};

static hy3_status resolve(struct pass *p, const char *text, char **out);

/* The last one: an argument stands behind what it replaces. */
static const struct hy3_setting *find(const struct pass *p, const char *key)
{
    for (size_t i = p->settings->count; i > 0; i--)
        if (strcmp(p->settings->items[i - 1].key, key) == 0)
            return &p->settings->items[i - 1];
    return NULL;
}

/* "NAME" or "NAME,default", maybe in quotes. */
static hy3_status get_variable(struct pass *p, char *name, char **out)
{
    char *initial = strchr(name, ',');
    const char *value;
    size_t length;

    if (initial)
        *initial++ = '\0';
    value = getenv(name);
    if (!value && !initial) {
        hy3_problem(p->problems, p->setting->where,
                    "%.64s: the environment has no variable '%.64s', and no default is given",
                    p->setting->key, name);
        return HY3_OK;
    }
    if (value)
        return hy3_strdup(value, out);
    initial += strspn(initial, " ");
    length = strlen(initial);
    if (length >= 2 && (*initial == '\'' || *initial == '"') && initial[length - 1] == *initial) {
        initial[length - 1] = '\0';
        initial++;
    }
    return hy3_strdup(initial, out);
}

/* What stands for "${name}", name being of any kind; NULL after a problem. */
static hy3_status get(struct pass *p, char *name, char **out)
{
    static const char env[] = "oc.env:";
    const struct hy3_setting *from;

    if (strncmp(name, env, sizeof env - 1) == 0)
        return get_variable(p, name + sizeof env - 1, out);
    if (strchr(name, ':')) {
        hy3_problem(p->problems, p->setting->where,
                    "%.64s: '${%.64s}' is not available; ${key} and ${oc.env:NAME,default} are",
                    p->setting->key, name);
        return HY3_OK;
    }
    from = find(p, name);
    if (!from || (from->type != HY3_VALUE_WORD && from->type != HY3_VALUE_NULL)) {
        hy3_problem(p->problems, p->setting->where, "%.64s: '${%.64s}' names no key with one value",
                    p->setting->key, name);
        return HY3_OK;
    }
    if (p->chain == CHAIN_MAX) {
        hy3_problem(p->problems, p->setting->where, "%.64s: '${%.64s}' leads back to itself",
                    p->setting->key, name);
        return HY3_OK;
    }
    return resolve(p, from->type == HY3_VALUE_NULL ? "" : from->texts.items[0], out);
}

/* Appends `size` bytes to the text, which grows; false after a problem. */
static hy3_status append(struct pass *p, struct text *text, const char *bytes, size_t size,
                         bool *fits)
{
    *fits = text->size + size < RESULT_MAX;
    if (!*fits) {
        hy3_problem(p->problems, p->setting->where, "%.64s: the text grows too long",
                    p->setting->key);
        return HY3_OK;
    }
    HY3_TRY(hy3_grow(&text->data, &text->capacity, text->size + size + 1, 1));
    memcpy(text->data + text->size, bytes, size);
    text->size += size;
    return HY3_OK;
}

/* Appends what stands for the reference from `begin` to `end`, "${" and "}" without. */
static hy3_status append_reference(struct pass *p, struct text *text, const char *begin,
                                   const char *end, bool *fits)
{
    hy3_status status = HY3_OK;
    char *name = NULL, *value = NULL;

    *fits = false;
    if (memmem(begin, (size_t)(end - begin), "${", 2) || ++*p->resolved > RESOLVED_MAX) {
        hy3_problem(p->problems, p->setting->where,
                    "%.64s: a reference stands inside another, or "
                    "there are more than %d",
                    p->setting->key, RESOLVED_MAX);
        return HY3_OK;
    }
    HY3_TRY_DONE(hy3_alloc(&name, (size_t)(end - begin) + 1, 1));
    memcpy(name, begin, (size_t)(end - begin));
    p->chain++;
    status = get(p, name, &value);
    p->chain--;
    if (status == HY3_OK && value)
        status = append(p, text, value, strlen(value), fits);
done:
    hy3_free(name);
    hy3_free(value);
    return status;
}

/* The text with all of its ${…} resolved; the caller owns *out, NULL after a problem. */
static hy3_status resolve(struct pass *p, const char *from, char **out)
{
    hy3_status status = HY3_OK;
    struct text text = {0};
    const char *begin, *end;
    bool fits = true;

    *out = NULL;
    while (fits && (begin = strstr(from, "${")) && (end = strchr(begin, '}'))) {
        HY3_TRY_DONE(append(p, &text, from, (size_t)(begin - from), &fits));
        if (fits)
            HY3_TRY_DONE(append_reference(p, &text, begin + 2, end, &fits));
        from = end + 1;
    }
    if (fits)
        HY3_TRY_DONE(append(p, &text, from, strlen(from), &fits));
    if (fits)
        *out = HY3_TAKE(text.data);
done:
    hy3_free(text.data);
    return status;
}

hy3_status hy3_interpolate(struct hy3_settings *settings, struct hy3_problems *problems)
{
    int resolved = 0;

    for (size_t i = 0; i < settings->count; i++) {
        struct hy3_setting *s = &settings->items[i];
        struct pass p = {
            .settings = settings, .setting = s, .problems = problems, .resolved = &resolved};

        /* what an argument has replaced is null, and asks for nothing */
        for (int k = 0; s->type != HY3_VALUE_NULL && k < s->texts.count; k++) {
            char *text;

            if (!strstr(s->texts.items[k], "${"))
                continue;
            HY3_TRY(resolve(&p, s->texts.items[k], &text));
            if (!text)
                continue;
            hy3_free(s->texts.items[k]);
            s->texts.items[k] = text;
            if (s->type == HY3_VALUE_WORD && hy3_scalar_is_null(text))
                s->type = HY3_VALUE_NULL;
        }
    }
    return HY3_OK;
}
