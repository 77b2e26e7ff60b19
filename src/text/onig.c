/* SPDX-License-Identifier: Apache-2.0 */
/* onig.c - translates Oniguruma's Ruby syntax to PCRE2.
 *
 * Callouts are added where a match counts its steps: at the beginning, in each group, and behind
 * each repeat but the first '?' of a row. Between two of them a match can only go straight on.
 *
 * Read differently by the two, and rewritten here: \h \H (hex digits), \v (one character), \w \W \b
 * \B (marks are part of a word), \uHHHH, \p{Script} (PCRE2 means extensions), {,n}, (?m) (dot
 * matches newline). ^ and $ always act per line, which is a compile option. Refused: classes inside
 * classes, &&, [:name:], {n,m}+, options in mid-pattern, verbs, and escapes of one side only. */
#include "text/onig.h"

#include <ctype.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* What Oniguruma calls a word character: inside a class, and elsewhere, where it looks Latin-1 up
 * in another table. */
#define CLASS_WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define WORD       CLASS_WORD "\\xb2\\xb3\\xb9\\xbc-\\xbe"

struct reader {
    const char *at, *begin, *where;
    struct hy3_text *out;
    bool in_class;
    bool has_optional; /* a '?' behind which there is no callout yet */
};

static hy3_status put(struct reader *r, const char *text)
{
    return hy3_text_append(r->out, text, strlen(text));
}

static hy3_status put_callout(struct reader *r)
{
    r->has_optional = false;
    return put(r, "(?C)");
}

static hy3_status refuse(const struct reader *r, const char *what)
{
    HY3_FAIL(HY3_EFORMAT, "%s: the pattern '%.300s' uses %s, which is not supported", r->where,
             r->begin, what);
}

static hy3_status copy(struct reader *r, size_t size)
{
    hy3_status status = hy3_text_append(r->out, r->at, size);

    r->at += size;
    return status;
}

static bool is_script(const char *name, size_t size)
{
    char probe[64];
    pcre2_code *code;
    int error;
    PCRE2_SIZE at;

    if (size <= 2 || size > 40) /* one or two letters are a general category */
        return false;
    snprintf(probe, sizeof probe, "\\p{sc:%.*s}", (int)size, name);
    code = pcre2_compile((PCRE2_SPTR)probe, PCRE2_ZERO_TERMINATED, PCRE2_UTF, &error, &at, NULL);
    pcre2_code_free(code);
    return code != NULL;
}

/* \p{…} and \P{…}; r->at is at the backslash. */
static hy3_status translate_property(struct reader *r)
{
    const char *name = r->at + 3, *end = strchr(r->at, '}');

    if (r->at[2] != '{' || !end)
        return refuse(r, "\\p without {name}");
    HY3_TRY(copy(r, 3));
    if (*name == '^') {
        HY3_TRY(copy(r, 1));
        name++;
    }
    if (is_script(name, (size_t)(end - name)))
        HY3_TRY(put(r, "sc:"));
    return copy(r, (size_t)(end + 1 - r->at));
}

static hy3_status translate_code(struct reader *r)
{
    char code[16];
    int digits = 0;

    while (digits < 4 && isxdigit((unsigned char)r->at[2 + digits]))
        digits++;
    if (digits < 4)
        return refuse(r, "\\u without four digits");
    snprintf(code, sizeof code, "\\x{%.4s}", r->at + 2);
    r->at += 6;
    return put(r, code);
}

/* r->at is at the backslash. */
static hy3_status translate_escape(struct reader *r)
{
    /* clang-format off */
    static const struct { char letter; const char *outside, *inside; } table[] = {
        {'h', "[0-9A-Fa-f]",          "0-9A-Fa-f"},
        {'H', "[^0-9A-Fa-f]",         NULL},
        {'v', "\\x0b",                "\\x0b"},
        {'w', "[" WORD "]",           CLASS_WORD},
        {'W', "[^" WORD "]",          NULL},
        {'b', "(?:(?<=[" WORD "])(?![" WORD "])"
              "|(?<![" WORD "])(?=[" WORD "]))", "\\x08"},
        {'B', "(?:(?<=[" WORD "])(?=[" WORD "])"
              "|(?<![" WORD "])(?![" WORD "]))", NULL},
    };

    /* clang-format on */
    char letter = r->at[1], what[] = "the escape \\? here";
    const char *text;

    what[12] = letter;
    if (letter == '\0')
        return refuse(r, "a backslash at its end");
    if (letter == 'p' || letter == 'P')
        return translate_property(r);
    if (letter == 'u')
        return translate_code(r);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        if (table[i].letter != letter)
            continue;
        text = r->in_class ? table[i].inside : table[i].outside;
        r->at += 2;
        return text ? put(r, text) : refuse(r, what);
    }
    if (letter == 'x' && r->at[2] == '{' && strchr(r->at, '}'))
        return copy(r, (size_t)(strchr(r->at, '}') + 1 - r->at));
    if (letter == 'x' && r->at[2] != '\0' && strchr("89abcdefABCDEF", r->at[2]))
        return refuse(r, "\\x of a single byte");
    if (isalpha((unsigned char)letter) &&
        !strchr(r->in_class ? "dDsSnrtfaex" : "AzZdDsSnrtfaexR", letter))
        return refuse(r, what);
    return copy(r, 2);
}

static hy3_status translate_class_item(struct reader *r)
{
    if (*r->at == '\\')
        return translate_escape(r);
    if (*r->at == '[')
        return refuse(r, "a class inside a class");
    if (r->at[0] == '&' && r->at[1] == '&')
        return refuse(r, "the intersection of classes");
    r->in_class = *r->at != ']';
    return copy(r, 1);
}

static hy3_status enter_class(struct reader *r)
{
    size_t size = r->at[1] == '^' ? 2 : 1;

    r->in_class = true;
    return copy(r, size + (r->at[size] == ']')); /* a first ']' is a character */
}

/* "(?imx-imx:" or "(?imx)"; r->at is at the letters. */
static hy3_status translate_options(struct reader *r)
{
    size_t size = strspn(r->at, "imx-");

    if (r->at[size] != ':' && r->at[size] != ')')
        return refuse(r, "an unknown group");
    if (r->at[size] == ')' && r->at != r->begin + 2)
        return refuse(r, "options in mid-pattern");
    for (; size > 0; size--, r->at++)
        HY3_TRY(hy3_text_append(r->out, *r->at == 'm' ? "s" : r->at, 1));
    HY3_TRY(copy(r, 1));
    return put_callout(r);
}

static hy3_status enter_group(struct reader *r)
{
    size_t size = 3;

    if (r->at[1] == '*')
        return refuse(r, "a verb");
    if (r->at[1] != '?') {
        HY3_TRY(copy(r, 1));
        return put_callout(r);
    }
    if (r->at[2] != '\0' && strchr("imx-", r->at[2])) {
        HY3_TRY(copy(r, 2));
        return translate_options(r);
    }
    if (r->at[2] == '\0' || !strchr(":=!><", r->at[2]))
        return refuse(r, "an unknown group");
    if (r->at[2] == '<') /* looks behind, or has a name */
        size = r->at[3] == '=' || r->at[3] == '!' ? 4 : strcspn(r->at, ">") + 1;
    if (size > strlen(r->at))
        return refuse(r, "an unknown group");
    HY3_TRY(copy(r, size));
    return put_callout(r);
}

/* Whether a repeat begins here: '*', '+', '?', or a brace with numbers. */
static bool is_repeat(const char *at)
{
    size_t low, high;

    if (*at != '{')
        return *at != '\0' && strchr("*+?", *at);
    low = strspn(at + 1, "0123456789");
    high = at[1 + low] == ',' ? 1 + strspn(at + 2 + low, "0123456789") : 0;
    return at[1 + low + high] == '}' && low + high > (size_t)(high > 0);
}

/* The callout behind a repeat, of which the last character but '?' or '+' behind it is copied. */
static hy3_status end_repeat(struct reader *r, bool is_optional)
{
    bool counts = !is_optional || r->has_optional;

    if (*r->at == '?' || *r->at == '+')
        HY3_TRY(copy(r, 1));
    r->has_optional |= is_optional;
    return counts && !is_repeat(r->at) ? put_callout(r) : HY3_OK;
}

/* r->at is at '{'. */
static hy3_status translate_braces(struct reader *r)
{
    if (!is_repeat(r->at)) { /* a plain brace */
        HY3_TRY(put(r, "\\"));
        return copy(r, 1);
    }
    HY3_TRY(copy(r, 1));
    if (*r->at == ',')
        HY3_TRY(put(r, "0"));
    HY3_TRY(copy(r, strcspn(r->at, "}") + 1));
    return *r->at == '+' ? refuse(r, "'{n,m}+'") : end_repeat(r, false);
}

static hy3_status translate_item(struct reader *r)
{
    char c = *r->at;

    switch (c) {
    case '\\':
        return translate_escape(r);
    case '[':
        return enter_class(r);
    case '(':
        return enter_group(r);
    case '{':
        return translate_braces(r);
    case '*':
    case '+':
    case '?':
        HY3_TRY(copy(r, 1));
        return end_repeat(r, c == '?');
    default:
        return copy(r, 1);
    }
}

hy3_status hy3_onig_translate(const char *source, const char *where, struct hy3_text *out)
{
    struct reader r = {source, source, where, out, false, false};

    HY3_TRY(put_callout(&r));
    while (*r.at != '\0')
        HY3_TRY(r.in_class ? translate_class_item(&r) : translate_item(&r));
    return HY3_OK;
}
