/* SPDX-License-Identifier: Apache-2.0 */
/* interpolate.c - ${key} and ${oc.env:NAME,default} in texts, as OmegaConf resolves them. */
#include "base/memory.h"
#include "config/foreign/scalar.h"
#include "config/foreign/yaml.h"

#include <stdlib.h>

enum { CHAIN_MAX = 8, RESULT_MAX = 64 << 10 };

struct pass {
    const struct hy3_settings *settings;
    const struct hy3_setting *setting; /* whose text is resolved: for messages */
    struct hy3_problems *problems;
    int chain; /* of texts that name each other */
};

static hy3_status resolve(struct pass *p, const char *text, char **out);

static const struct hy3_setting *find(const struct pass *p, const char *key)
{
    for (size_t i = 0; i < p->settings->count; i++)
        if (strcmp(p->settings->items[i].key, key) == 0)
            return &p->settings->items[i];
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

/* The text with all of its ${…} resolved; the caller owns *out, NULL after a problem. */
static hy3_status resolve(struct pass *p, const char *text, char **out)
{
    hy3_status status = HY3_OK;
    const char *begin, *end;
    char *name = NULL, *value = NULL, *rest = NULL;
    size_t size;

    *out = NULL;
    if (!(begin = strstr(text, "${")) || !(end = strchr(begin, '}')))
        return hy3_strdup(text, out);
    HY3_TRY_DONE(hy3_alloc(&name, (size_t)(end - begin), 1));
    memcpy(name, begin + 2, (size_t)(end - begin) - 2);
    p->chain++;
    status = get(p, name, &value);
    p->chain--;
    if (status == HY3_OK && value)
        HY3_TRY_DONE(resolve(p, end + 1, &rest));
    if (!rest)
        goto done;
    size = (size_t)(begin - text) + strlen(value) + strlen(rest) + 1;
    if (size > RESULT_MAX) {
        hy3_problem(p->problems, p->setting->where, "%.64s: the text grows too long",
                    p->setting->key);
        goto done;
    }
    HY3_TRY_DONE(hy3_alloc(out, size, 1));
    snprintf(*out, size, "%.*s%s%s", (int)(begin - text), text, value, rest);
done:
    hy3_free(name);
    hy3_free(value);
    hy3_free(rest);
    return status;
}

hy3_status hy3_interpolate(struct hy3_settings *settings, struct hy3_problems *problems)
{
    for (size_t i = 0; i < settings->count; i++) {
        struct hy3_setting *s = &settings->items[i];
        struct pass p = {.settings = settings, .setting = s, .problems = problems};

        for (int k = 0; k < s->texts.count; k++) {
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
