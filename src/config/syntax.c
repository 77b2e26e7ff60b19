/* SPDX-License-Identifier: Apache-2.0 */
/* syntax.c - looks at one line of a text that libconfig refused, as the forms that people take
 * for a configuration: unquoted texts, JSON, YAML, sections. */
#include "config/syntax.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { SHOWN = 100 }; /* bytes of a line in a message */

struct line {
    char text[SHOWN + 4];           /* without comment and blanks at its ends */
    char key[64], value[SHOWN + 4]; /* of key = value or key : value; "" */
    bool has_key, has_sign, is_cut;
};

/* The line's place in the text, "" when there is none. */
static const char *find_line(const char *text, int line)
{
    for (; line > 1 && text; line--)
        text = (text = strchr(text, '\n')) ? text + 1 : NULL;
    return text ? text : "";
}

/* Bytes of the line at `text` before a comment. */
static size_t line_length(const char *text)
{
    bool quoted = false;
    size_t n = 0;

    for (; text[n] && text[n] != '\n'; n++) {
        quoted ^= text[n] == '"' && (n == 0 || text[n - 1] != '\\');
        if (!quoted && (text[n] == '#' || (text[n] == '/' && text[n + 1] == '/')))
            break;
    }
    return n;
}

static bool is_trailing(char c, bool ends)
{
    return isspace((unsigned char)c) || (ends && (c == ';' || c == ','));
}

/* Copies the bytes from `begin` to `end` without blanks and, if `ends`, without what ends a
 * setting. True if they did not fit. */
static bool copy_trimmed(const char *begin, const char *end, bool ends, char *out, size_t size)
{
    size_t length;

    while (begin < end && isspace((unsigned char)*begin))
        begin++;
    /* NOLINTNEXTLINE(clang-analyzer-core.CallAndMessage): begin to end is text that was read */
    while (end > begin && is_trailing(end[-1], ends))
        end--;
    length = (size_t)(end - begin) < size ? (size_t)(end - begin) : size - 1;
    memcpy(out, begin, length);
    out[length] = '\0';
    return begin + length < end;
}

static void read_line(const char *text, int number, struct line *l)
{
    const char *begin = find_line(text, number), *end = begin + line_length(begin);
    const char *at = begin + strspn(begin, " \t"), *key = at;

    *l = (struct line){.has_key = false};
    l->is_cut = copy_trimmed(begin, end, false, l->text, SHOWN);
    while (at < end && (isalnum((unsigned char)*at) || *at == '_' || *at == '-'))
        at++;
    l->has_key = at > key && isalpha((unsigned char)*key);
    copy_trimmed(key, at, false, l->key, sizeof l->key);
    at += strspn(at, " \t");
    l->has_sign = at < end && (*at == '=' || *at == ':');
    if (l->has_sign)
        copy_trimmed(at + 1, end, true, l->value, SHOWN);
}

void hy3_syntax_pair(const char *text, int line, char *key, size_t key_size, char *value,
                     size_t value_size)
{
    struct line l;

    read_line(text, line, &l);
    snprintf(key, key_size, "%s", l.has_key ? l.key : "");
    snprintf(value, value_size, "%s", l.value);
}

int hy3_syntax_earlier(const char *text, int line, const char *key)
{
    struct line l;

    for (line--; line > 0; line--) {
        read_line(text, line, &l);
        if (strcasecmp(l.key, key) == 0)
            return line;
    }
    return 0;
}

static bool is_number(const char *value)
{
    char *end;

    strtod(value, &end);
    end += *end == 'L';
    return end != value && *end == '\0';
}

static bool is_word(const char *value, const char *words)
{
    size_t length = strlen(value);

    for (const char *word = words; *word; word += strcspn(word, " "), word += *word == ' ')
        if (strcspn(word, " ") == length && strncasecmp(word, value, length) == 0)
            return true;
    return false;
}

/* What is wrong with the value, to stand behind a colon; false: nothing that can be seen. */
static bool explain_value(const struct line *l, char *why, size_t size)
{
    const char *v = l->value;
    size_t last = strlen(v) > 0 ? strlen(v) - 1 : 0;

    if (*v == '\0')
        snprintf(why, size, "the value is missing; to keep the default leave the line out");
    else if (is_number(v) || is_word(v, "true false") || *v == '(' ||
             (*v == '"' && last > 0 && v[last] == '"' && strcspn(v + 1, "\"") == last - 1))
        return false; /* NOLINT(bugprone-branch-clone): the order of the cases matters */
    else if (is_word(v, "none null ~ nil"))
        snprintf(why, size, "there is no %s; to keep the default leave the line out", v);
    else if (is_word(v, "yes no on off"))
        snprintf(why, size, "write true or false");
    else if (*v == '\'')
        snprintf(why, size, "texts stand in double quotes, not in single ones");
    else if (*v == '[' || (strchr(v, ',') && !strchr(v, ' ') && *v != '"'))
        snprintf(why, size, "a list is [\"a\", \"b\"], its texts in double quotes");
    else if (*v == '"' && strchr(v, ','))
        snprintf(why, size, "a list stands in brackets, [\"a\", \"b\"]");
    else if (*v == '"' || *v == '=')
        return false;
    else if (isdigit((unsigned char)*v) && !strchr(v, '/'))
        snprintf(why, size, "'%s' is no number; a text stands in double quotes", v);
    else if (strpbrk(v, "\"={[") || l->is_cut)
        snprintf(why, size, "texts stand in double quotes, and a setting ends with ';'");
    else
        snprintf(why, size, "texts stand in double quotes: %s = \"%s\";", l->key, v);
    return true;
}

/* The same of the line. */
static bool explain_line(const struct line *l, char *why, size_t size)
{
    const char *t = l->text;

    if (*t == '{' || (*t == '"' && strstr(t, "\":")))
        snprintf(why, size, "this is JSON; a configuration is lines key = value;");
    else if (*t == '[')
        snprintf(why, size, "there are no [sections]; a configuration is lines key = value;");
    else if (strncmp(t, "---", 3) == 0 || strncmp(t, "- ", 2) == 0 || *t == '%')
        snprintf(why, size, "this is YAML; a configuration is lines key = value;");
    else if (l->has_key && l->has_sign)
        return explain_value(l, why, size);
    else if (l->has_key && !strpbrk(t, "=:"))
        snprintf(why, size, "a setting is key = value;");
    else
        return false;
    return true;
}

/* Reads the last line before `number` that says something; returns its number, 0: there is none. */
static int read_before(const char *text, int number, struct line *l)
{
    *l = (struct line){.has_key = false};
    while (l->text[0] == '\0' && --number > 0)
        read_line(text, number, l);
    return number > 0 ? number : 0;
}

void hy3_syntax_explain(const char *text, int *line, char *why, size_t size)
{
    struct line here, before;
    char reason[HY3_SYNTAX_MAX / 2], earlier[HY3_SYNTAX_MAX / 2];
    int previous = read_before(text, *line, &before);
    bool found, lacks_value = before.has_sign && before.value[0] == '\0';

    read_line(text, *line, &here);
    found = explain_line(&here, reason, sizeof reason);
    /* the reader stops behind the fault, often on a later line */
    if (previous > 0 && (lacks_value || !found) &&
        (explain_line(&before, earlier, sizeof earlier) || here.text[0] == '\0')) {
        *line = previous;
        here = before;
        found = explain_line(&here, reason, sizeof reason);
    }
    if (!found)
        snprintf(reason, sizeof reason,
                 "a setting is key = value; with texts in double quotes and lists as "
                 "[\"a\", \"b\"]");
    snprintf(why, size, "syntax error in '%s%s': %s", here.text, here.is_cut ? "…" : "", reason);
}
