/* SPDX-License-Identifier: Apache-2.0 */
/* scalar.c - the resolver of PyYAML's SafeLoader (yaml/resolver.py), with OmegaConf's float. */
#include "config/foreign/scalar.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NUMBER_MAX = 64 }; /* bytes of any sensible number */

static bool is_one_of(const char *text, const char *const *words)
{
    for (; *words; words++)
        if (strcmp(text, *words) == 0)
            return true;
    return false;
}

bool hy3_scalar_is_null(const char *text)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};

    return is_one_of(text, nulls);
}

bool hy3_scalar_truth(const char *text, bool *truth)
{
    static const char *const yes[] = {"true", "True", "TRUE", "yes", "Yes", "YES",
                                      "on",   "On",   "ON",   "1",   NULL};
    static const char *const no[] = {"false", "False", "FALSE", "no", "No", "NO",
                                     "off",   "Off",   "OFF",   "0",  NULL};

    *truth = is_one_of(text, yes);
    return *truth || is_one_of(text, no);
}

/* The text without the underscores between digits. False if it is too long or has others. */
static bool strip_underscores(const char *text, char out[NUMBER_MAX])
{
    size_t used = 0;

    for (const char *p = text; *p; p++) {
        if (*p == '_' && (p == text || !isxdigit((unsigned char)p[-1])))
            return false;
        if (*p == '_')
            continue;
        if (used + 1 == NUMBER_MAX)
            return false;
        out[used++] = *p;
    }
    out[used] = '\0';
    return used > 0;
}

/* 0x…, 0b… and 0… of YAML 1.1; the base is 10 for everything else. */
static int base_of(const char *digits)
{
    if (digits[0] != '0' || digits[1] == '\0')
        return 10;
    if (digits[1] == 'x')
        return 16;
    if (digits[1] == 'b')
        return 2;
    return strspn(digits, "01234567") == strlen(digits) ? 8 : 10;
}

static bool read_whole(const char *text, bool is_yaml, struct hy3_scalar_number *number)
{
    bool is_negative = *text == '-';
    const char *digits = text + (*text == '-' || *text == '+');
    int base = is_yaml ? base_of(digits) : 10;
    char *end;

    if (!isdigit((unsigned char)*digits))
        return false;
    if (is_yaml && base == 10 && digits[0] == '0' && isdigit((unsigned char)digits[1]))
        return false; /* 08: a text in YAML */
    digits += base == 16 || base == 2 ? 2 : 0;
    if (!isxdigit((unsigned char)*digits))
        return false;
    errno = 0;
    number->integer = strtoll(digits, &end, base);
    if (*end != '\0' || errno != 0)
        return false;
    number->integer = is_negative ? -number->integer : number->integer;
    number->real = (double)number->integer;
    number->is_whole = true;
    return true;
}

static bool read_real(const char *text, struct hy3_scalar_number *number)
{
    const char *p = text + (*text == '-' || *text == '+');
    char *end;

    if (!isdigit((unsigned char)*p) && !(*p == '.' && isdigit((unsigned char)p[1])))
        return false;
    if (strspn(p, "0123456789.eE+-") != strlen(p))
        return false;
    number->real = strtod(text, &end);
    if (*end != '\0' || !isfinite(number->real))
        return false;
    number->is_whole = floor(number->real) == number->real && fabs(number->real) < 0x1p53;
    number->integer = number->is_whole ? (int64_t)number->real : 0;
    return true;
}

bool hy3_scalar_number(const char *text, bool is_yaml, struct hy3_scalar_number *number)
{
    char digits[NUMBER_MAX];

    *number = (struct hy3_scalar_number){0};
    if (!strip_underscores(text, digits))
        return false;
    return read_whole(digits, is_yaml, number) || read_real(digits, number);
}
