/* SPDX-License-Identifier: Apache-2.0 */
/* arguments.c - a table of arguments, parsed and explained. */
#include "config/arguments.h"

#include "config/help.h"
#include "config/nearest.h"
#include "config/version.h"

#include <errno.h>
#include <math.h>

static void print_help(const struct hy3_usage *u)
{
    printf("usage: %s", u->program);
    for (int i = 0; i < u->count; i++)
        if (u->arguments[i].type == HY3_ARG_WORD)
            printf(" %s", u->arguments[i].name);
    printf(" [--name value ...]\n%s\n\n", u->summary);
    for (int i = 0; i < u->count; i++) {
        const struct hy3_argument *a = &u->arguments[i];
        char left[64];

        if (a->type == HY3_ARG_WORD)
            snprintf(left, sizeof left, "%s", a->name);
        else
            snprintf(left, sizeof left, "--%s %s", a->name, a->value ? a->value : "");
        printf("  %-26s %s\n", left, a->help);
    }
    printf("  %-26s %s\n  %-26s %s\n", "--help", "this text", "--version", "the version");
}

/* `text` with the characters that troff reads itself. */
static void print_troff(const char *text)
{
    for (; *text; text++)
        printf(*text == '-' || *text == '\\' ? "\\%c" : "%c", *text);
}

/* The body of a manual page, checked in under doc/man. */
static void print_manual(const struct hy3_usage *u)
{
    printf(".\\\" made by %s \\-\\-write\\-reference=man\n.TH %s 1 \"\" \"hy3 %s\" hy3\n",
           u->program, u->program, HY3_VERSION);
    printf(".SH NAME\n%s \\- %c%.*s", u->program, u->summary[0] | 0x20,
           (int)strcspn(u->summary + 1, "."), u->summary + 1);
    printf("\n.SH SYNOPSIS\n.B %s\n", u->program);
    for (int i = 0; i < u->count; i++)
        if (u->arguments[i].type == HY3_ARG_WORD)
            printf(".I %s\n", u->arguments[i].name);
    printf(".RI [\\-\\- name \" \" value \" ...]\"\n.SH ARGUMENTS\n");
    for (int i = 0; i < u->count; i++) {
        const struct hy3_argument *a = &u->arguments[i];

        if (a->value)
            printf(".TP\n.BI \\-\\-%s \" %s\"\n", a->name, a->value);
        else
            printf(".TP\n.B %s%s\n", a->type == HY3_ARG_WORD ? "" : "\\-\\-", a->name);
        print_troff(a->help);
        putchar('\n');
    }
    hy3_reference_write_exit(stdout);
    printf(".SH SEE ALSO\n.BR hy3_sft (1)\n");
}

/* The argument `name` of `length` characters, NULL if there is none. */
static const struct hy3_argument *find(const struct hy3_usage *u, const char *name, size_t length)
{
    for (int i = 0; i < u->count; i++)
        if (u->arguments[i].type != HY3_ARG_WORD && strlen(u->arguments[i].name) == length &&
            memcmp(u->arguments[i].name, name, length) == 0)
            return &u->arguments[i];
    return NULL;
}

static hy3_status unknown(const struct hy3_usage *u, const char *name, size_t length)
{
    const char *best = NULL;
    int best_distance;
    char word[64];

    snprintf(word, sizeof word, "%.*s", (int)(length < 63 ? length : 63), name);
    best_distance = hy3_edit_limit(word) + 1;
    for (int i = 0; i < u->count; i++) {
        int distance = hy3_edit_distance(word, u->arguments[i].name);

        if (u->arguments[i].type != HY3_ARG_WORD && distance < best_distance) {
            best = u->arguments[i].name;
            best_distance = distance;
        }
    }
    HY3_FAIL(HY3_EUSAGE,
             best ? "unknown argument '--%s'; did you mean '--%s'?"
                  : "unknown argument '--%s'; see --help",
             word, best);
}

static hy3_status set(const struct hy3_argument *a, const char *value)
{
    char *end;

    errno = 0;
    if (a->type == HY3_ARG_TEXT) {
        memcpy(a->target, &value, sizeof value);
        return HY3_OK;
    }
    if (a->type == HY3_ARG_COUNT) {
        long long n = strtoll(value, &end, 10);

        if (errno == 0 && end != value && *end == '\0' && n >= 0) {
            *(int64_t *)a->target = n;
            return HY3_OK;
        }
        HY3_FAIL(HY3_EUSAGE, "'--%s %s': the value must be a whole number, 0 or more", a->name,
                 value);
    }
    *(double *)a->target = strtod(value, &end);
    if (end != value && *end == '\0' && isfinite(*(double *)a->target) && *(double *)a->target >= 0)
        return HY3_OK;
    HY3_FAIL(HY3_EUSAGE, "'--%s %s': the value must be a number, 0 or more", a->name, value);
}

/* Takes argv[*i], a "--name…", and its value. */
static hy3_status take_named(const struct hy3_usage *u, int argc, char **argv, int *i)
{
    const char *name = argv[*i] + 2, *equals = strchr(name, '=');
    size_t length = equals ? (size_t)(equals - name) : strlen(name);
    const struct hy3_argument *a = find(u, name, length);

    if (!a)
        return unknown(u, name, length);
    if (a->type == HY3_ARG_FLAG) {
        if (equals)
            HY3_FAIL(HY3_EUSAGE, "'--%s' takes no value", a->name);
        *(bool *)a->target = true;
        return HY3_OK;
    }
    if (equals)
        return set(a, equals + 1);
    if (*i + 1 >= argc)
        HY3_FAIL(HY3_EUSAGE, "'--%s' needs a value", a->name);
    return set(a, argv[++*i]);
}

static const struct hy3_argument *word(const struct hy3_usage *u, int number)
{
    for (int i = 0; i < u->count; i++)
        if (u->arguments[i].type == HY3_ARG_WORD && number-- == 0)
            return &u->arguments[i];
    return NULL;
}

hy3_status hy3_arguments_parse(const struct hy3_usage *u, int argc, char **argv, bool writes,
                               bool *finished)
{
    int words = 0;

    *finished = false;
    for (int i = 1; i < argc; i++) {
        const char *text = argv[i];

        if (strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0) {
            if (writes)
                print_help(u);
            *finished = true;
            return HY3_OK;
        }
        if (strcmp(text, "--write-reference=man") == 0) {
            if (writes)
                print_manual(u);
            *finished = true;
            return HY3_OK;
        }
        if (strcmp(text, "--version") == 0) {
            if (writes)
                printf("%s %s\n", u->program, HY3_VERSION);
            *finished = true;
            return HY3_OK;
        }
        if (strncmp(text, "--", 2) == 0) {
            HY3_TRY(take_named(u, argc, argv, &i));
            continue;
        }
        if (!word(u, words))
            HY3_FAIL(HY3_EUSAGE, "unexpected argument '%s'; see --help", text);
        memcpy(word(u, words++)->target, &text, sizeof text);
    }
    if (word(u, words))
        HY3_FAIL(HY3_EUSAGE, "the argument %s is missing; see --help", word(u, words)->name);
    return HY3_OK;
}
