/* SPDX-License-Identifier: Apache-2.0 */
/* json.c - JSON to settings. jansson finds what is wrong; what it has taken is walked here once
 * more, for the lines of its keys and for numbers as they are written. */
#include "base/memory.h"
#include "config/foreign/yaml.h"

#include <jansson.h>

enum { DEPTH_MAX = 8, WHERE_MAX = 512 };

struct reader { /* of a text that is valid: it ends behind the brace of its first */
    const char *at;
    int line;
    const char *path;
    struct hy3_settings *settings;
    struct hy3_problems *problems;
};

static hy3_status read_map(struct reader *r, const char *prefix, int depth);

static void skip_space(struct reader *r)
{
    for (; *r->at == ' ' || *r->at == '\t' || *r->at == '\r' || *r->at == '\n'; r->at++)
        r->line += *r->at == '\n';
}

/* Behind the string at `at`. */
static const char *string_end(const char *at)
{
    for (at++; *at != '"';)
        at += *at == '\\' ? 2 : 1;
    return at + 1;
}

/* Behind the number or the word at `at`. */
static const char *word_end(const char *at)
{
    return at + strcspn(at, " \t\r\n,]}");
}

/* Behind the value at r->at, whatever is in it. */
static void skip_value(struct reader *r)
{
    int64_t depth = 0;

    do {
        skip_space(r);
        if (*r->at == '"') {
            r->at = string_end(r->at);
        } else if (strchr("{}[],:", *r->at)) {
            depth += *r->at == '{' || *r->at == '[';
            depth -= *r->at == '}' || *r->at == ']';
            r->at++;
        } else {
            r->at = word_end(r->at);
        }
    } while (depth > 0);
}

/* What the string at r->at says; the caller frees *out. */
static hy3_status take_string(struct reader *r, char **out)
{
    const char *end = string_end(r->at);
    json_t *text = json_loadb(r->at, (size_t)(end - r->at), JSON_DECODE_ANY, NULL);
    hy3_status status;

    if (!text)
        HY3_FAIL(HY3_ENOMEM, "out of memory for reading '%s'", r->path);
    status = hy3_strdup(json_string_value(text), out);
    json_decref(text);
    r->at = end;
    return status;
}

static hy3_status add_string(struct reader *r, struct hy3_list *texts)
{
    hy3_status status;
    char *text = NULL;

    HY3_TRY(take_string(r, &text));
    status = hy3_list_add(texts, text, strlen(text));
    hy3_free(text);
    return status;
}

static hy3_status add_word(struct reader *r, struct hy3_list *texts)
{
    const char *begin = r->at;

    r->at = word_end(begin);
    return hy3_list_add(texts, begin, (size_t)(r->at - begin));
}

static bool is_null(const struct reader *r)
{
    return strncmp(r->at, "null", 4) == 0;
}

static hy3_status read_list(struct reader *r, struct hy3_setting *to)
{
    to->type = HY3_VALUE_LIST;
    for (r->at++, skip_space(r); *r->at != ']'; skip_space(r)) {
        if (*r->at == ',') {
            r->at++;
        } else if (*r->at == '"') {
            HY3_TRY(add_string(r, &to->texts));
        } else if (*r->at == '{' || *r->at == '[' || is_null(r)) {
            to->type = HY3_VALUE_MIXED;
            skip_value(r);
        } else {
            HY3_TRY(add_word(r, &to->texts));
        }
    }
    r->at++;
    return HY3_OK;
}

static hy3_status add(const struct reader *r, const char *name, int line, struct hy3_setting **out)
{
    char place[WHERE_MAX];

    snprintf(place, sizeof place, "%.480s:%d", r->path, line);
    return hy3_settings_add(r->settings, name, place, out);
}

/* The value at r->at, of the key whose whole name is `name`; line: of the key. */
static hy3_status read_value(struct reader *r, const char *name, int line, int depth)
{
    struct hy3_setting *s;

    if (*r->at == '{' && depth == DEPTH_MAX) {
        char place[WHERE_MAX];

        snprintf(place, sizeof place, "%.480s:%d", r->path, line);
        hy3_problem(r->problems, place, "the maps of '%.64s' are nested too deep", name);
        skip_value(r);
        return HY3_OK;
    }
    if (*r->at == '{' && r->at[1 + strspn(r->at + 1, " \t\r\n")] != '}')
        return read_map(r, name, depth + 1);
    HY3_TRY(add(r, name, line, &s));
    if (*r->at == '[')
        return read_list(r, s);
    s->type = *r->at == '{' || is_null(r) ? HY3_VALUE_NULL : HY3_VALUE_WORD;
    if (s->type == HY3_VALUE_NULL)
        skip_value(r);
    else
        HY3_TRY(*r->at == '"' ? add_string(r, &s->texts) : add_word(r, &s->texts));
    return HY3_OK;
}

/* One key and its value. */
static hy3_status read_pair(struct reader *r, const char *prefix, int depth)
{
    hy3_status status = HY3_OK;
    char *key = NULL, *name = NULL;
    int line = r->line;
    size_t size;

    HY3_TRY_DONE(take_string(r, &key));
    size = strlen(prefix) + strlen(key) + 2;
    HY3_TRY_DONE(hy3_alloc(&name, size, 1));
    snprintf(name, size, "%s%s%s", prefix, *prefix ? "." : "", key);
    skip_space(r);
    r->at++; /* the colon */
    skip_space(r);
    status = read_value(r, name, line, depth);
done:
    hy3_free(key);
    hy3_free(name);
    return status;
}

static hy3_status read_map(struct reader *r, const char *prefix, int depth)
{
    for (r->at++, skip_space(r); *r->at != '}'; skip_space(r)) {
        if (*r->at == ',')
            r->at++;
        else
            HY3_TRY(read_pair(r, prefix, depth));
    }
    r->at++;
    return HY3_OK;
}

hy3_status hy3_json_settings(const char *text, size_t size, const char *path, const char *prefix,
                             struct hy3_settings *settings, struct hy3_problems *problems)
{
    size_t mark = size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0 ? 3 : 0;
    struct reader r = {
        .at = text + mark, .line = 1, .path = path, .settings = settings, .problems = problems};
    json_error_t error;
    json_t *root = json_loadb(text + mark, size - mark,
                              JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &error);
    bool is_map = json_is_object(root);
    char place[WHERE_MAX];

    snprintf(place, sizeof place, "%.480s:%d", path, root ? 1 : error.line);
    if (!root)
        hy3_problem(problems, place, "not valid JSON: %s", error.text);
    else if (!is_map)
        hy3_problem(problems, place, "the top level must be a map of keys and values");
    json_decref(root);
    if (!is_map)
        return HY3_OK;
    skip_space(&r);
    return read_map(&r, prefix, 0);
}
