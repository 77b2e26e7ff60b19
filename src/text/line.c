/* SPDX-License-Identifier: Apache-2.0 */
/* line.c - jansson, with numbers of any size. */
#include "text/line.h"

#include "base/json.h"
#include "base/memory.h"
#include "text/pyjson.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>

/* of two equal keys one would be lost */
enum { FLAGS = JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES | JSON_DECODE_ANY };

/* The end of the JSON number at `at`, or `at` if there is none. */
static const char *number_end(const char *at, const char *end)
{
    const char *p = at, *digits;

    if (p < end && *p == '-')
        p++;
    if (p == end || !isdigit((unsigned char)*p))
        return at;
    digits = p;
    while (p < end && isdigit((unsigned char)*p))
        p++;
    if (*digits == '0' && p - digits > 1)
        return at;
    if (p < end && *p == '.') {
        digits = ++p;
        while (p < end && isdigit((unsigned char)*p))
            p++;
        if (p == digits)
            return at;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-'))
            p++;
        digits = p;
        while (p < end && isdigit((unsigned char)*p))
            p++;
        if (p == digits)
            return at;
    }
    return p;
}

static hy3_status append_number(struct hy3_text *out, const char *number, size_t size)
{
    static const char before[] = "{\"" HY3_BIG_NUMBER "\":\"", after[] = "\"}";
    hy3_status status = HY3_OK;
    bool is_big;
    char *copy = NULL;

    HY3_TRY_DONE(hy3_alloc(&copy, size + 1, 1));
    memcpy(copy, number, size);
    errno = 0;
    if (strpbrk(copy, ".eE"))
        is_big = isinf(strtod(copy, NULL));
    else
        is_big = strtoll(copy, NULL, 10) != 0 && errno == ERANGE;
    if (is_big)
        HY3_TRY_DONE(hy3_text_append(out, before, sizeof before - 1));
    HY3_TRY_DONE(hy3_text_append(out, number, size));
    if (is_big)
        HY3_TRY_DONE(hy3_text_append(out, after, sizeof after - 1));
done:
    hy3_free(copy);
    return status;
}

/* Numbers that jansson cannot hold become objects that pyjson.c knows: a field that is not read
 * must not make a line invalid. */
static hy3_status wrap_numbers(const char *line, size_t size, struct hy3_text *out)
{
    const char *end = line + size, *begin = line, *stop;
    bool in_string = false;

    for (const char *at = line; at < end; at++) {
        if (in_string && *at == '\\' && at + 1 < end)
            at++;
        else if (*at == '"')
            in_string = !in_string;
        else if (!in_string && (stop = number_end(at, end)) > at) {
            HY3_TRY(hy3_text_append(out, begin, (size_t)(at - begin)));
            HY3_TRY(append_number(out, at, (size_t)(stop - at)));
            begin = stop;
            at = stop - 1;
        }
    }
    return hy3_text_append(out, begin, (size_t)(end - begin));
}

hy3_status hy3_json_line(const char *text, size_t size, json_t **out)
{
    hy3_status status = HY3_OK;
    struct hy3_text wrapped = {0};
    json_error_t error;

    *out = NULL;
    HY3_TRY_DONE(hy3_json_bound(text, size, NULL, HY3_JSON_MEMORY));
    *out = json_loadb(text, size, FLAGS, &error);
    if (!*out && json_error_code(&error) == json_error_numeric_overflow) {
        HY3_TRY_DONE(wrap_numbers(text, size, &wrapped));
        *out = json_loadb(wrapped.data, wrapped.size, FLAGS, &error);
    }
    if (!*out && json_error_code(&error) == json_error_out_of_memory)
        HY3_FAIL_DONE(HY3_ENOMEM, "out of host memory while reading a line");
    if (!*out)
        HY3_FAIL_DONE(HY3_EFORMAT, "not valid JSON at byte %d: %.200s", error.position, error.text);
done:
    hy3_free(wrapped.data);
    return status;
}

bool hy3_json_has_text(const json_t *value)
{
    return json_is_string(value) && json_string_length(value) > 0;
}

hy3_status hy3_json_no_memory(void)
{
    HY3_FAIL(HY3_ENOMEM, "out of host memory while reading a line");
}

hy3_status hy3_json_set(json_t *object, const char *key, json_t *value)
{
    return value && json_object_set_new(object, key, value) == 0 ? HY3_OK : hy3_json_no_memory();
}

json_t *hy3_json_column(json_t *line, const char *name)
{
    json_t *value = *name ? json_object_get(line, name) : NULL;

    return json_is_null(value) ? NULL : value;
}

bool hy3_json_is_role(const json_t *message, const char *role)
{
    const char *text = json_string_value(json_object_get(message, "role"));

    return text && *role && strcmp(text, role) == 0;
}
