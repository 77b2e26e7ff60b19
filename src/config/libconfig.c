/* SPDX-License-Identifier: Apache-2.0 */
/* libconfig.c - libconfig text to settings.
 *
 * libconfig 1.5 silently truncates integers above 32 bits unless they end in L, opens files named
 * by @include, ends texts at a NUL escape and refuses a comment at the very end. So the text is
 * first copied, with L and a line end added where they are needed, and what must not be is
 * refused. */
#include "base/memory.h"
#include "config/settings.h"
#include "config/syntax.h"

#include <libconfig.h>

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <strings.h>

struct scan {
    const char *at, *end; /* of the text as it is in the file */
    char *out;            /* the copy, behind what is written */
    int line, names;
    const char *path;
    struct hy3_problems *problems;
};

enum {
    WHERE_MAX = 512,
    NAMES_MAX = 4096 /* libconfig's time grows with the square of their number */
};

static const char *where(char out[WHERE_MAX], const char *path, int line)
{
    snprintf(out, WHERE_MAX, "%.480s:%d", path, line);
    return out;
}

static void refuse(struct scan *s, const char *text)
{
    char place[WHERE_MAX];

    hy3_problem(s->problems, where(place, s->path, s->line), "%s", text);
}

static void copy(struct scan *s, size_t size)
{
    for (size_t i = 0; i < size && s->at < s->end; i++) {
        s->line += *s->at == '\n';
        *s->out++ = *s->at++;
    }
}

static size_t left(const struct scan *s)
{
    return (size_t)(s->end - s->at);
}

static bool starts_with(const struct scan *s, const char *word)
{
    return left(s) >= strlen(word) && strncasecmp(s->at, word, strlen(word)) == 0;
}

/* Names the line where an unterminated text or comment began; libconfig would name the last. */
static void refuse_open(struct scan *s, int line, const char *text)
{
    s->line = line;
    refuse(s, text);
}

static void copy_comment(struct scan *s)
{
    bool block = starts_with(s, "/*");
    int line = s->line;

    copy(s, block ? 2 : 1);
    while (s->at < s->end && (block ? !starts_with(s, "*/") : *s->at != '\n'))
        copy(s, 1);
    if (block && s->at == s->end)
        refuse_open(s, line, "a comment without its */");
    copy(s, block ? 2 : 1);
}

static void copy_text(struct scan *s)
{
    int line = s->line;

    copy(s, 1);
    while (s->at < s->end && *s->at != '"' && *s->at != '\n') {
        if (starts_with(s, "\\x00"))
            refuse(s, "a text must not hold a NUL");
        copy(s, *s->at == '\\' ? 2 : 1);
    }
    if (s->at == s->end || *s->at == '\n')
        refuse_open(s, line, "a text without its closing quote");
    copy(s, 1);
}

/* Characters of the number at s->at: a sign counts at the front and behind an exponent's e. */
static size_t number_length(const struct scan *s)
{
    size_t n = 1;

    while (n < left(s) &&
           (isalnum((unsigned char)s->at[n]) || s->at[n] == '.' ||
            ((s->at[n] == '-' || s->at[n] == '+') && (s->at[n - 1] == 'e' || s->at[n - 1] == 'E'))))
        n++;
    return n;
}

static void copy_number(struct scan *s)
{
    size_t length = number_length(s);
    char word[64] = "", *end;
    long long value;

    if (length == 1 && !isdigit((unsigned char)*s->at)) { /* a lone sign or dot */
        copy(s, 1);
        return;
    }
    memcpy(word, s->at, length < sizeof word ? length : sizeof word - 1);
    errno = 0;
    value = strtoll(word, &end, 10);
    if (errno == ERANGE && strspn(word, "+-0123456789L") == strlen(word))
        refuse(s, "the number is too large");
    if (tolower((unsigned char)*end) == 'x')
        refuse(s, "a hexadecimal number; write it in decimal");
    if (length >= sizeof word)
        refuse(s, "the number is too long");
    copy(s, length);
    if (*end == '\0' && (value > INT_MAX || value < INT_MIN))
        *s->out++ = 'L';
}

/* Keys, true, false: digits in them are no numbers. */
static void copy_name(struct scan *s)
{
    size_t n = 1;

    while (n < left(s) && (isalnum((unsigned char)s->at[n]) || strchr("_-*", s->at[n])) &&
           s->at[n] != '\0')
        n++;
    if (++s->names == NAMES_MAX)
        refuse(s, "more keys than any configuration has");
    copy(s, n);
}

static void copy_item(struct scan *s)
{
    unsigned char c = (unsigned char)*s->at;

    if (c == '"') {
        copy_text(s);
    } else if (c == '#' || starts_with(s, "//") || starts_with(s, "/*")) {
        copy_comment(s);
    } else if (isdigit(c) || c == '-' || c == '+' || c == '.') {
        copy_number(s);
    } else if (isalpha(c) || c == '*' || c == '_') {
        copy_name(s);
    } else {
        if (starts_with(s, "@include"))
            refuse(s, "@include is not supported; put all keys into one file");
        copy(s, 1);
    }
}

/* The text in a form that libconfig reads correctly; the caller owns *out. */
static hy3_status prepare(const char *text, size_t size, const char *path,
                          struct hy3_problems *problems, char **out)
{
    struct scan s = {.at = text, .end = text + size, .line = 1, .path = path, .problems = problems};

    if (size >= 2 && (memcmp(text, "\xff\xfe", 2) == 0 || memcmp(text, "\xfe\xff", 2) == 0))
        refuse(&s, "this is UTF-16; save it as UTF-8");
    HY3_TRY(hy3_alloc(out, 2 * size + 2, 1)); /* at most one L a number */
    s.out = *out;
    while (s.at < s.end && problems->count == 0) {
        if (*s.at == '\0')
            refuse(&s, "a NUL byte; this is not a text file");
        copy_item(&s);
    }
    *s.out = '\n'; /* a comment must not be the end */
    return HY3_OK;
}

static hy3_status read_list(const config_setting_t *from, struct hy3_setting *to)
{
    to->type = HY3_VALUE_LIST;
    for (int i = 0; i < config_setting_length(from); i++) {
        const char *text = config_setting_get_string_elem(from, i);

        if (!text) {
            to->type = HY3_VALUE_MIXED;
            break;
        }
        HY3_TRY(hy3_list_add(&to->texts, text, strlen(text)));
    }
    return HY3_OK;
}

static hy3_status read_value(const config_setting_t *from, struct hy3_setting *to)
{
    const char *text;

    switch (config_setting_type(from)) {
    case CONFIG_TYPE_BOOL:
        to->type = HY3_VALUE_BOOL;
        to->truth = config_setting_get_bool(from);
        return HY3_OK;
    case CONFIG_TYPE_INT:
    case CONFIG_TYPE_INT64:
        to->type = HY3_VALUE_INT;
        to->integer = config_setting_get_int64(from);
        return HY3_OK;
    case CONFIG_TYPE_FLOAT:
        to->type = HY3_VALUE_REAL;
        to->real = config_setting_get_float(from);
        return HY3_OK;
    case CONFIG_TYPE_STRING:
        to->type = HY3_VALUE_TEXT;
        text = config_setting_get_string(from);
        return hy3_list_add(&to->texts, text, strlen(text));
    default:
        return read_list(from, to);
    }
}

static hy3_status read_setting(const config_setting_t *from, const char *path,
                               struct hy3_settings *settings, struct hy3_problems *problems)
{
    char place[WHERE_MAX];
    struct hy3_setting *setting;

    where(place, path, (int)config_setting_source_line(from));
    if (config_setting_is_group(from)) {
        hy3_problem(problems, place, "'%.64s' is a group; keys stand by themselves here",
                    config_setting_name(from));
        return HY3_OK;
    }
    HY3_TRY(hy3_settings_add(settings, config_setting_name(from), place, &setting));
    return read_value(from, setting);
}

/* libconfig's errors are a line and two words. */
static void explain(const char *text, const char *path, const config_t *config,
                    struct hy3_problems *problems)
{
    char place[WHERE_MAX], why[HY3_SYNTAX_MAX], key[64], values[2][64];
    const char *error = config_error_text(config);
    int line = config_error_line(config), earlier;

    hy3_syntax_pair(text, line, key, sizeof key, values[1], sizeof values[1]);
    earlier = strstr(error, "duplicate") ? hy3_syntax_earlier(text, line, key) : 0;
    if (earlier > 0) {
        hy3_syntax_pair(text, earlier, key, sizeof key, values[0], sizeof values[0]);
        hy3_problem(problems, where(place, path, line),
                    "'%s' is given twice, %s in line %d and %s here; keep one", key, values[0],
                    earlier, values[1]);
    } else if (strstr(error, "duplicate")) {
        hy3_problem(problems, where(place, path, line), "a key is given twice; keep one");
    } else if (strstr(error, "mismatched")) {
        hy3_problem(problems, where(place, path, line),
                    "the elements of a list must all be texts in double quotes");
    } else {
        hy3_syntax_explain(text, &line, why, sizeof why);
        hy3_problem(problems, where(place, path, line), "%s", why);
    }
}

hy3_status hy3_libconfig_read(const char *text, size_t size, const char *path,
                              struct hy3_settings *settings, struct hy3_problems *problems)
{
    hy3_status status = HY3_OK;
    struct hy3_problems found = {0}; /* of the scan, which stops at the first */
    char *prepared = NULL;
    const config_setting_t *root;
    config_t config;

    if (size >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) { /* a mark of editors */
        text += 3;
        size -= 3;
    }
    config_init(&config);
    HY3_TRY_DONE(prepare(text, size, path, &found, &prepared));
    if (found.count > 0) {
        hy3_problem(problems, "", "%s", found.text + 3);
        goto done;
    }
    if (!config_read_string(&config, prepared)) {
        explain(text, path, &config, problems);
        goto done;
    }
    root = config_root_setting(&config);
    for (int i = 0; i < config_setting_length(root); i++)
        HY3_TRY_DONE(
            read_setting(config_setting_get_elem(root, (unsigned)i), path, settings, problems));
done:
    config_destroy(&config);
    hy3_free(prepared);
    return status;
}
