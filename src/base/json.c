/* SPDX-License-Identifier: Apache-2.0 */
/* json.c - typed access to JSON. */
#include "base/json.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"

#include <math.h>

/* What jansson takes for the value or member that this character begins or separates. */
static size_t cost_of(char c)
{
    switch (c) {
    case '{':
        return 352;
    case '[':
        return 224;
    case ',':
    case ':':
        return 96;
    default:
        return 0;
    }
}

hy3_status hy3_json_bound(const char *text, size_t size, const char *where, size_t limit)
{
    bool is_inside = false; /* a text */
    size_t cost = 0;

    if (size < limit / 352)
        return HY3_OK;
    for (size_t i = 0; i < size; i++) {
        if (text[i] == '"')
            is_inside = !is_inside;
        else if (!is_inside)
            cost += cost_of(text[i]);
        else if (text[i] == '\\')
            i++;
    }
    if (cost > limit)
        HY3_FAIL(HY3_EFORMAT,
                 "%s%sits JSON values would take about %zu MiB of host memory, at most %zu are "
                 "allowed",
                 where ? where : "", where ? ": " : "", cost >> 20, limit >> 20);
    return HY3_OK;
}

hy3_status hy3_json_parse(const char *text, size_t size, const char *where, json_t **out)
{
    json_error_t error;

    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) {
        text += 3;
        size -= 3;
    }
    *out = NULL;
    HY3_TRY(hy3_json_bound(text, size, where, HY3_JSON_MEMORY));
    *out = json_loadb(text, size, JSON_ALLOW_NUL, &error);
    if (!*out)
        HY3_FAIL(HY3_EFORMAT, "%s:%d:%d: not valid JSON: %s", where, error.line, error.column,
                 error.text);
    return HY3_OK;
}

hy3_status hy3_json_read(const char *path, size_t limit, json_t **out)
{
    hy3_status status = HY3_OK;
    char *text = NULL;
    size_t size;

    *out = NULL;
    HY3_TRY_DONE(hy3_file_read(path, limit, &text, &size));
    HY3_TRY_DONE(hy3_json_parse(text, size, path, out));
    if (!json_is_object(*out)) {
        json_decref(*out);
        *out = NULL;
        HY3_FAIL_DONE(HY3_EFORMAT, "%s: the top level must be an object", path);
    }
done:
    hy3_free(text);
    return status;
}

hy3_status hy3_json_write(const char *path, const json_t *value)
{
    hy3_status status = HY3_OK;
    char *text = json_dumps(value, JSON_INDENT(2) | JSON_ENCODE_ANY);
    size_t size;

    if (!text)
        HY3_FAIL_DONE(HY3_ENOMEM, "cannot format '%s'", path);
    size = strlen(text);
    text[size] = '\n'; /* in place of the NUL: only `size + 1` bytes are written */
    HY3_TRY_DONE(hy3_output_replace(path, text, size + 1));
done:
    free(text);
    return status;
}

static bool is_absent(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);

    return !value || json_is_null(value);
}

static hy3_status missing(const char *key, const char *where)
{
    HY3_FAIL(HY3_EFORMAT, "%s: the key '%s' is missing", where, key);
}

hy3_status hy3_json_int(const json_t *object, const char *key, const char *where, int64_t low,
                        int64_t high, int64_t *out)
{
    const json_t *value = json_object_get(object, key);

    if (is_absent(object, key))
        return missing(key, where);
    if (!json_is_integer(value))
        HY3_FAIL(HY3_EFORMAT, "%s: '%s' must be an integer", where, key);
    *out = json_integer_value(value);
    if (*out < low || *out > high)
        HY3_FAIL(HY3_EFORMAT, "%s: '%s' is %lld, it must be %lld to %lld", where, key,
                 (long long)*out, (long long)low, (long long)high);
    return HY3_OK;
}

hy3_status hy3_json_int_or(const json_t *object, const char *key, const char *where, int64_t low,
                           int64_t high, int64_t initial, int64_t *out)
{
    *out = initial;
    return is_absent(object, key) ? HY3_OK : hy3_json_int(object, key, where, low, high, out);
}

hy3_status hy3_json_real_or(const json_t *object, const char *key, const char *where,
                            double initial, double *out)
{
    const json_t *value = json_object_get(object, key);

    *out = initial;
    if (is_absent(object, key))
        return HY3_OK;
    if (!json_is_number(value) || !isfinite(json_number_value(value)))
        HY3_FAIL(HY3_EFORMAT, "%s: '%s' must be a number", where, key);
    *out = json_number_value(value);
    return HY3_OK;
}

hy3_status hy3_json_bool_or(const json_t *object, const char *key, const char *where, bool initial,
                            bool *out)
{
    const json_t *value = json_object_get(object, key);

    *out = initial;
    if (is_absent(object, key))
        return HY3_OK;
    if (!json_is_boolean(value))
        HY3_FAIL(HY3_EFORMAT, "%s: '%s' must be true or false", where, key);
    *out = json_is_true(value);
    return HY3_OK;
}

hy3_status hy3_json_text(const json_t *object, const char *key, const char *where, const char **out)
{
    const json_t *value = json_object_get(object, key);

    if (is_absent(object, key))
        return missing(key, where);
    if (!json_is_string(value))
        HY3_FAIL(HY3_EFORMAT, "%s: '%s' must be text", where, key);
    *out = json_string_value(value);
    return HY3_OK;
}
