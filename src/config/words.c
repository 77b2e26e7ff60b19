/* SPDX-License-Identifier: Apache-2.0 */
/* words.c - values of the command line: lists of texts, sizes in bytes; what settings come to. */
#include "base/memory.h"
#include "config/assign.h"

#include <math.h>
#include <strings.h>

/* Reads a text in quotes at *at into `out`; \" and \\ stand for " and \. False if the quote stays
 * open. */
static bool read_quoted(const char **at, char *out, size_t *length)
{
    const char *p = *at + 1;

    for (*length = 0; *p && *p != '"'; p++) {
        if (*p == '\\' && (p[1] == '"' || p[1] == '\\'))
            p++;
        out[(*length)++] = *p;
    }
    *at = *p ? p + 1 : p;
    return *p == '"';
}

static void read_plain(const char **at, const char *end, char *out, size_t *length)
{
    const char *p = *at;

    for (*length = 0; p < end && *p != ','; p++)
        out[(*length)++] = *p;
    *at = p;
    while (*length > 0 && out[*length - 1] == ' ')
        (*length)--;
}

hy3_status hy3_word_split(const char *word, struct hy3_list *texts, bool *valid)
{
    hy3_status status = HY3_OK;
    size_t size = strlen(word), length;
    const char *at = word, *end = word + size;
    char *text = NULL;

    *valid = true;
    HY3_TRY_DONE(hy3_alloc(&text, size + 1, 1));
    if (size >= 2 && *word == '[' && end[-1] == ']') {
        at++;
        end--;
    }
    for (bool more = at < end; more && *valid;) {
        at += strspn(at, " ");
        if (*at == '"')
            *valid = read_quoted(&at, text, &length) && at <= end;
        else
            read_plain(&at, end, text, &length);
        at += at < end ? strspn(at, " ") : 0;
        HY3_TRY_DONE(hy3_list_add(texts, text, length));
        more = at < end && *at == ',';
        *valid = *valid && (more || at >= end);
        at++;
    }
done:
    hy3_free(text);
    return status;
}

int64_t hy3_config_interval(double setting, int64_t steps)
{
    if (setting <= 0)
        return INT64_MAX;
    return setting < 1 ? (int64_t)ceil(setting * (double)steps) : (int64_t)setting;
}

int64_t hy3_config_save_interval(const struct hy3_config *c, int64_t steps, int64_t epoch)
{
    switch (c->save_strategy) {
    case HY3_SAVE_STRATEGY_steps:
        return hy3_config_interval(c->save_steps, steps);
    case HY3_SAVE_STRATEGY_epoch:
        return epoch;
    default:
        return INT64_MAX;
    }
}

int64_t hy3_config_eval_interval(const struct hy3_config *c, int64_t steps, int64_t epoch)
{
    switch (c->eval_strategy) {
    case HY3_EVAL_STRATEGY_steps:
        return hy3_config_interval(c->eval_steps, steps);
    case HY3_EVAL_STRATEGY_epoch:
        return epoch;
    default:
        return INT64_MAX;
    }
}

bool hy3_config_evaluates(const struct hy3_config *c)
{
    return c->eval_data_file.count > 0 || c->eval_dataset.count > 0 || c->val_size > 0;
}

bool hy3_config_chooses(const struct hy3_config *c)
{
    return c->load_best_model_at_end || c->early_stopping_patience > 0 ||
           c->save_strategy == HY3_SAVE_STRATEGY_best;
}

bool hy3_config_is_of_schedule(const char *key, const char *type)
{
    static const char cosines[] =
        "cosine cosine_with_min_lr cosine_with_restarts "
        "warmup_stable_decay cosine_warmup_with_min_lr";
    static const char minima[] = "cosine_with_min_lr warmup_stable_decay cosine_warmup_with_min_lr";

    static const struct {
        const char *key, *types;
    } keys[] = {{"min_lr", minima},
                {"min_lr_rate", minima},
                {"warmup_lr_rate", "cosine_warmup_with_min_lr"},
                {"lr_num_cycles", cosines},
                {"lr_power", "polynomial"},
                {"lr_end", "polynomial"},
                {"lr_timescale", "inverse_sqrt"},
                {"lr_num_decay_steps", "warmup_stable_decay"},
                {"lr_num_stable_steps", "warmup_stable_decay"},
                {"lr_warmup_type", "warmup_stable_decay"},
                {"lr_decay_type", "warmup_stable_decay"}};

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(key, keys[i].key) == 0)
            return hy3_option_has_word(keys[i].types, type);
    return true;
}

hy3_status hy3_config_bytes(const char *text, const char *key, int64_t *bytes)
{
    static const struct {
        const char *unit;
        double size;
    } units[] = {{"B", 1},        {"K", 1e3},     {"M", 1e6},     {"G", 1e9},      {"T", 1e12},
                 {"KB", 1e3},     {"MB", 1e6},    {"GB", 1e9},    {"TB", 1e12},    {"Ki", 0x1p10},
                 {"Mi", 0x1p20},  {"Gi", 0x1p30}, {"Ti", 0x1p40}, {"KiB", 0x1p10}, {"MiB", 0x1p20},
                 {"GiB", 0x1p30}, {"TiB", 0x1p40}};

    const char *unit = text + strspn(text, "0123456789.");
    char *end;
    double value = strtod(text, &end);

    if (end != unit) /* 1e3, 0x10, 1..2 */
        value = 0;
    unit += strspn(unit, " ");
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        double all = value * units[i].size;

        if (strcasecmp(unit, units[i].unit) != 0 || !(all >= 1) || !(all < 0x1p63))
            continue;
        *bytes = (int64_t)all;
        return HY3_OK;
    }
    if (*unit == '\0' && value > 0) /* 80 is not meant as 80 bytes, 5000000000 may be */
        HY3_FAIL(HY3_EUSAGE, "'%s' is %.80s without a unit; write %.80s%s, or %s", key, text, text,
                 value < 1e6 ? "G" : "B",
                 value < 1e6 ? "another of K M G T (powers of 1000) and KiB MiB GiB TiB (of 1024)"
                             : "K M G T (powers of 1000) or KiB MiB GiB TiB (of 1024)");
    HY3_FAIL(HY3_EUSAGE, "'%s' is %.80s; it must be a size such as \"5GB\" or \"512MiB\"", key,
             text);
}
