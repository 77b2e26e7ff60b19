/* SPDX-License-Identifier: Apache-2.0 */
/* help.c - --help from the tables. */
#include "config/help.h"

#include "base/memory.h"
#include "config/assign.h"

enum { LEFT = 38, LEFT_OF_ARGUMENT = 29, RIGHT = 98 }; /* columns */

/* Writes words from column *at on, on lines that begin at column `left` and end before RIGHT. */
static void wrap(FILE *out, const char *text, int left, int *at)
{
    const char *word;
    size_t length;

    while ((word = hy3_option_word(&text, &length))) {
        if (*at > left && *at + 1 + (int)length > RIGHT) {
            fprintf(out, "\n%*s", left, "");
            *at = left;
        }
        *at += fprintf(out, "%s%.*s", *at > left ? " " : "", (int)length, word);
    }
}

static hy3_status write_option(FILE *out, const struct hy3_option *o,
                               const struct hy3_config *defaults)
{
    hy3_status status = HY3_OK;
    char *value = NULL, notes[512];
    int at;

    HY3_TRY_DONE(hy3_option_format(o, defaults, &value));
    hy3_option_note(o, notes, sizeof notes);
    at = fprintf(out, "  %s%s%s", o->key, *value ? " = " : "", value);
    if (at >= LEFT - 1) {
        fputc('\n', out);
        at = 0;
    }
    fprintf(out, "%*s", LEFT - at, "");
    at = LEFT;
    wrap(out, o->help, LEFT, &at);
    wrap(out, notes, LEFT, &at);
    fputc('\n', out);
done:
    hy3_free(value);
    return status;
}

/* "--name VALUE" and what it does. */
static void write_argument(FILE *out, const struct hy3_option *o)
{
    char left[64];
    int at = LEFT_OF_ARGUMENT;

    if (o->type == HY3_WORD)
        snprintf(left, sizeof left, "%s", o->key);
    else
        snprintf(left, sizeof left, "--%s %s", o->key, o->value ? o->value : "");
    fprintf(out, "  %-26s ", left);
    wrap(out, o->help, LEFT_OF_ARGUMENT, &at);
    fputc('\n', out);
}

static void write_arguments(FILE *out, const struct hy3_usage *u)
{
    fprintf(out, "usage: %s%s", u->program, u->config ? " CONFIG" : "");
    for (const struct hy3_option *o = u->arguments; o->key; o++)
        if (o->type == HY3_WORD)
            fprintf(out, " %s", o->key);
    fprintf(out, " [--name value ...]%s\n%s\n\n", u->config ? " [key=value ...]" : "", u->summary);
    if (u->config)
        fprintf(out, "  %-26s %s\n  %-26s %s\n", "CONFIG", HY3_HELP_CONFIG, "key=value",
                HY3_HELP_KEYS "; hy3_sft --help lists them");
    for (const struct hy3_option *o = u->arguments; o->key; o++)
        write_argument(out, o);
    if (u->config)
        fprintf(out, "  %-26s %s\n", "--print-config", HY3_HELP_PRINT);
    fprintf(out, "  %-26s %s\n  %-26s %s\n", "--help", "this text", "--version", "the version");
}

hy3_status hy3_help_write(FILE *out, const struct hy3_usage *u)
{
    hy3_status status = HY3_OK;
    struct hy3_config defaults = {0};

    if (!u->lists_keys) {
        write_arguments(out, u);
        return HY3_OK;
    }
    HY3_TRY_DONE(hy3_config_defaults(&defaults));
    fprintf(out,
            "usage: %s CONFIG [key=value ...]\n%s\n\n"
            "CONFIG is a libconfig file of lines key = value; the arguments key=value override "
            "it.\n"
            "A .yaml or .json of LLaMA-Factory or ms-swift can stand in its place, or the flags of "
            "these\n"
            "and of Hy3's train.py: doc/migration.md.\n"
            "Lists are [\"a\", \"b\"] in the file, a,b or [\"a\",\"b\"] as an argument. --help "
            "shows this,\n"
            "--version the version.\n",
            u->program, u->summary);
    for (const struct hy3_option *o = u->arguments; o->key; o++)
        write_argument(out, o);
    fprintf(out, "  %-26s %s\n", "--print-config", HY3_HELP_PRINT);
    fputs("Keys with their defaults:\n", out);
    for (const struct hy3_option *o = hy3_options; o->key; o++) {
        if (o->type == HY3_GROUP)
            fprintf(out, "\n%s\n", o->key);
        else
            HY3_TRY_DONE(write_option(out, o, &defaults));
    }
done:
    hy3_config_free(&defaults);
    return status;
}
