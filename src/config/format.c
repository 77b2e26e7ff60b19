/* SPDX-License-Identifier: Apache-2.0 */
/* format.c - values and configurations as libconfig text. */
#include "base/memory.h"
#include "config/options.h"
#include "config/version.h"

#include <inttypes.h>

static void write_text(FILE *out, const char *text)
{
    fputc('"', out);
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;

        if (c == '"' || c == '\\')
            fprintf(out, "\\%c", c);
        else if (c == '\n' || c == '\t')
            fprintf(out, "\\%c", c == '\n' ? 'n' : 't');
        else if (c < 0x20 || c == 0x7f)
            fprintf(out, "\\x%02x", c);
        else
            fputc(c, out);
    }
    fputc('"', out);
}

/* The fewest digits that read back as the same number; 500, not 5e+02. */
static void write_real(FILE *out, double value)
{
    char text[40] = "";

    if (value > -1e6 && value < 1e6 && value == (double)(int64_t)value) {
        fprintf(out, "%" PRId64, (int64_t)value);
        return;
    }
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, value);
        if (strtod(text, NULL) == value)
            break;
    }
    fputs(text, out);
}

/* One word as a text, several as a list. */
static void write_set(FILE *out, const struct hy3_option *o, int64_t set)
{
    bool is_list = (set & (set - 1)) != 0;

    if (set == 0)
        write_text(out, o->words[0]);
    for (int i = 1, count = 0; o->words[i]; i++) {
        if (!(set >> (i - 1) & 1))
            continue;
        fputs(!is_list ? "" : count++ == 0 ? "[" : ", ", out);
        write_text(out, o->words[i]);
    }
    fputs(is_list ? "]" : "", out);
}

static void write_value(FILE *out, const struct hy3_option *o, const struct hy3_config *config)
{
    const void *value = hy3_option_value(o, config);
    const struct hy3_list *list = value;

    switch (o->type) {
    case HY3_COUNT:
        if (o->count.automatic && *(const int64_t *)value == 0)
            fputs("\"auto\"", out);
        else
            fprintf(out, "%" PRId64, *(const int64_t *)value);
        return;
    case HY3_REAL:
        write_real(out, *(const double *)value);
        return;
    case HY3_BOOL:
        fputs(*(const bool *)value ? "true" : "false", out);
        return;
    case HY3_CHOICE:
        write_text(out, o->words[*(const int *)value]);
        return;
    case HY3_SET:
        write_set(out, o, *(const int64_t *)value);
        return;
    case HY3_LIST:
        for (int i = 0; i < list->count; i++) {
            fputs(i == 0 ? "[" : ", ", out);
            write_text(out, list->items[i]);
        }
        fputc(']', out);
        return;
    default:
        write_text(out, *(char *const *)value);
    }
}

/* Ends a memory stream: *text is owned by the caller, or NULL with HY3_ENOMEM. */
static hy3_status finish(FILE *out, char **text)
{
    bool failed = !out || ferror(out);

    if (out && fclose(out) != 0)
        failed = true;
    if (!failed)
        return HY3_OK;
    hy3_free(*text);
    *text = NULL;
    HY3_FAIL(HY3_ENOMEM, "out of memory for a text");
}

hy3_status hy3_option_format(const struct hy3_option *option, const struct hy3_config *config,
                             char **text)
{
    size_t size;
    FILE *out;

    *text = NULL;
    out = open_memstream(text, &size);
    if (out && hy3_option_is_set(option, config))
        write_value(out, option, config);
    return finish(out, text);
}

static hy3_status write_line(FILE *out, const struct hy3_option *o, const struct hy3_config *config)
{
    enum { WIDTH = 40 }; /* of the part before the comment, where it fits */

    hy3_status status = HY3_OK;
    char *value = NULL;
    int used;

    HY3_TRY_DONE(hy3_option_format(o, config, &value));
    if (hy3_option_is_set(o, config))
        used = fprintf(out, "%s = %s;", o->key, value);
    else
        used = fprintf(out, "# %s is not set", o->key);
    fprintf(out, "%*s # %s\n", used < WIDTH ? WIDTH - used : 0, "", o->help);
done:
    hy3_free(value);
    return status;
}

hy3_status hy3_config_format(const struct hy3_config *config, char **text)
{
    hy3_status status = HY3_OK;
    size_t size;
    FILE *out;

    *text = NULL;
    if ((out = open_memstream(text, &size)))
        fprintf(out, "# hy3 %s: the resolved configuration, which can be run again\n", HY3_VERSION);
    for (const struct hy3_option *o = hy3_options; out && o->key && status == HY3_OK; o++) {
        if (o->type == HY3_GROUP)
            fprintf(out, "\n# %s\n", o->key);
        else
            status = write_line(out, o, config);
    }
    if (finish(out, text) != HY3_OK)
        return HY3_ENOMEM;
    if (status != HY3_OK) {
        hy3_free(*text);
        *text = NULL;
    }
    return status;
}

const char *hy3_config_word(const struct hy3_config *config, const char *key)
{
    const struct hy3_option *o = hy3_option_find(hy3_options, key);

    if (o && o->type == HY3_CHOICE)
        return o->words[*(const int *)hy3_option_value(o, config)];
    HY3_BUG("'%s' is no key with a choice", key);
}
