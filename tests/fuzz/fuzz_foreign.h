/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_foreign.h - what fuzzers of other tools' configurations share: their settings as ours. */
#pragma once

#include "config/assign.h"
#include "config/foreign/translate.h"
#include "config/options.h"
#include "config/settings.h"
#include "fuzz.h"

/* Puts settings of ours into a configuration of defaults. */
static inline void fuzz_assign(const struct hy3_settings *ours, struct hy3_config *config,
                               struct hy3_problems *problems)
{
    *config = (struct hy3_config){0};
    if (hy3_config_defaults(config) != HY3_OK)
        abort();
    for (size_t i = 0; i < ours->count; i++) {
        const struct hy3_option *o = hy3_option_find(hy3_options, ours->items[i].key);

        if (!o)
            HY3_BUG("'%s' is no key of hy3", ours->items[i].key);
        if (hy3_option_assign(o, &ours->items[i], config, problems) != HY3_OK)
            abort();
    }
}

/* What is written of a configuration reads back as the same: so ranks share it, and so a run's
 * config.cfg runs again. */
static inline void fuzz_write_again(const struct hy3_config *config)
{
    struct hy3_settings settings = {0};
    struct hy3_problems problems = {0};
    struct hy3_config again;
    char *text, *second;

    if (hy3_config_format(config, &text) != HY3_OK ||
        hy3_libconfig_read(text, strlen(text), "run.cfg", &settings, &problems) != HY3_OK)
        abort();
    fuzz_assign(&settings, &again, &problems);
    if (hy3_config_format(&again, &second) != HY3_OK)
        abort();
    if (problems.count > 0 || strcmp(text, second) != 0)
        HY3_BUG("the configuration is another when read again: %s", text);
    hy3_free(text);
    hy3_free(second);
    hy3_config_free(&again);
    hy3_settings_free(&settings);
}

/* Settings of theirs into settings of ours, and those into a configuration. */
static inline void fuzz_translate(const struct hy3_settings *given, enum hy3_origin origin,
                                  const char *path)
{
    struct hy3_settings ours = {0};
    struct hy3_list notes = {0};
    struct hy3_problems problems = {0};
    struct hy3_config config = {0};

    if (hy3_foreign_translate(origin, path, given, &ours, 2, &notes, &problems) == HY3_OK) {
        fuzz_assign(&ours, &config, &problems);
        if (problems.count == 0)
            fuzz_write_again(&config);
    }
    hy3_config_free(&config);
    hy3_list_free(&notes);
    hy3_settings_free(&ours);
}

/* The bytes as a text; the caller frees it. */
static inline char *fuzz_text(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);

    if (!text)
        abort();
    memcpy(text, data, size);
    text[size] = '\0';
    return text;
}
