/* SPDX-License-Identifier: Apache-2.0 */
/* pyjson.c - JSON as Python writes it. */
#include "text/pyjson.h"

#include <math.h>

static hy3_status append(struct hy3_text *out, const char *text)
{
    return hy3_text_append(out, text, strlen(text));
}

/* Writes |value| with `precision` digits behind the point; false if it does not read back as the
 * same double. */
static bool round_trips(double value, int precision, char text[40])
{
    char *last;

    snprintf(text, 40, "%.*e", precision, value);
    if (strtod(text, NULL) == value)
        return true;
    /* above a power of two the doubles are twice as far apart as below: the next decimal up may
     * still do */
    last = strchr(text, 'e') - 1;
    if (*last != '9')
        ++*last;
    return strtod(text, NULL) == value;
}

/* Digits of the shortest decimal that reads back as `value`, and its exponent: 0.d1d2… *
 * 10^point. */
static int shortest(double value, char digits[32], int *point)
{
    char text[40];
    int count = 0;

    for (int precision = 0; precision < 17 && !round_trips(value, precision, text); precision++)
        continue;
    for (char *at = text; *at != 'e'; at++)
        if (*at >= '0' && *at <= '9')
            digits[count++] = *at;
    *point = (int)strtol(strchr(text, 'e') + 1, NULL, 10) + 1;
    while (count > 1 && digits[count - 1] == '0')
        count--;
    return count;
}

hy3_status hy3_pyjson_append_real(struct hy3_text *out, double value)
{
    char digits[32] = "0", text[64], *at = text;
    int point, count;

    if (!isfinite(value))
        return append(out, isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity");
    count = shortest(fabs(value), digits, &point);
    if (value == 0)
        point = 1;
    if (signbit(value))
        *at++ = '-';
    if (point > 16 || point < -3) { /* exponent form */
        *at++ = digits[0];
        if (count > 1)
            *at++ = '.';
        for (int i = 1; i < count; i++)
            *at++ = digits[i];
        snprintf(at, 16, "e%c%02d", point > 0 ? '+' : '-', abs(point - 1));
        return append(out, text);
    }
    if (point <= 0)
        *at++ = '0';
    for (int i = point < 0 ? point : 0; i <= point || i < count; i++) {
        if (i == point)
            *at++ = '.';
        *at++ = '0';
        if (i >= 0 && i < count)
            at[-1] = digits[i];
    }
    *at = '\0';
    return append(out, text);
}

static hy3_status append_string(struct hy3_text *out, const char *text, size_t size)
{
    static const char short_forms[] = "\"\"\\\\\bb\ff\nn\rr\tt";
    size_t begin = 0;
    char escape[8];

    HY3_TRY(append(out, "\""));
    for (size_t i = 0; i <= size; i++) {
        if (i < size && (unsigned char)text[i] >= 0x20 && text[i] != '"' && text[i] != '\\')
            continue;
        HY3_TRY(hy3_text_append(out, text + begin, i - begin));
        begin = i + 1;
        if (i == size)
            break;
        snprintf(escape, sizeof escape, "\\u%04x", (unsigned)text[i]);
        for (const char *form = short_forms; *form != '\0'; form += 2)
            if (*form == text[i])
                snprintf(escape, sizeof escape, "\\%c", form[1]);
        HY3_TRY(append(out, escape));
    }
    return append(out, "\"");
}

static hy3_status append_array(struct hy3_text *out, const json_t *array)
{
    const json_t *item;
    size_t i;

    HY3_TRY(append(out, "["));
    json_array_foreach(array, i, item)
    {
        HY3_TRY(append(out, i > 0 ? ", " : ""));
        HY3_TRY(hy3_pyjson_append(out, item));
    }
    return append(out, "]");
}

static hy3_status append_big_number(struct hy3_text *out, const char *digits)
{
    if (strpbrk(digits, ".eE"))
        return append(out, *digits == '-' ? "-Infinity" : "Infinity");
    return append(out, digits);
}

static hy3_status append_object(struct hy3_text *out, json_t *object)
{
    const json_t *big = json_object_get(object, HY3_BIG_NUMBER);
    const char *key, *comma = "";
    json_t *item;

    if (json_is_string(big))
        return append_big_number(out, json_string_value(big));
    HY3_TRY(append(out, "{"));
    json_object_foreach(object, key, item)
    {
        HY3_TRY(append(out, comma));
        HY3_TRY(append_string(out, key, strlen(key)));
        HY3_TRY(append(out, ": "));
        HY3_TRY(hy3_pyjson_append(out, item));
        comma = ", ";
    }
    return append(out, "}");
}

hy3_status hy3_pyjson_append(struct hy3_text *out, const json_t *value)
{
    char number[32];

    switch (json_typeof(value)) {
    case JSON_OBJECT:
        return append_object(out, (json_t *)value);
    case JSON_ARRAY:
        return append_array(out, value);
    case JSON_STRING:
        return append_string(out, json_string_value(value), json_string_length(value));
    case JSON_INTEGER:
        snprintf(number, sizeof number, "%lld", (long long)json_integer_value(value));
        return append(out, number);
    case JSON_REAL:
        return hy3_pyjson_append_real(out, json_real_value(value));
    case JSON_TRUE:
        return append(out, "true");
    case JSON_FALSE:
        return append(out, "false");
    default:
        return append(out, "null");
    }
}
