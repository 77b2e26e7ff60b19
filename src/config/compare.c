/* SPDX-License-Identifier: Apache-2.0 */
/* compare.c - reads the old configuration leniently, then compares value by value. */
#include "config/compare.h"

#include "base/memory.h"
#include "base/path.h"
#include "config/assign.h"
#include "config/settings.h"

void hy3_changes_free(struct hy3_changes *changes)
{
    for (size_t i = 0; i < changes->count; i++) {
        hy3_free(changes->items[i].before);
        hy3_free(changes->items[i].now);
    }
    hy3_free(changes->items);
    *changes = (struct hy3_changes){0};
}

/* What an older or newer hy3 wrote: values that mean nothing here keep their defaults. */
static hy3_status read_old(const char *text, size_t size, struct hy3_config *config)
{
    hy3_status status = HY3_OK;
    struct hy3_settings settings = {0};
    struct hy3_problems problems = {0}, ignored = {0};

    HY3_TRY_DONE(hy3_config_defaults(config));
    HY3_TRY_DONE(hy3_libconfig_read(text, size, "config.cfg", &settings, &problems));
    if (problems.count > 0)
        HY3_FAIL_DONE(HY3_EFORMAT, "it is no configuration: %.512s", problems.text);
    for (size_t i = 0; i < settings.count; i++) {
        const struct hy3_option *o = hy3_option_find(hy3_options, settings.items[i].key);

        if (o)
            HY3_TRY_DONE(hy3_option_assign(o, &settings.items[i], config, &ignored));
    }
done:
    hy3_settings_free(&settings);
    return status;
}

static bool is_same_directory(const char *a, const char *b)
{
    return hy3_path_is_same(a, b) && hy3_path_is_directory(a);
}

/* Whether the key has an effect in either configuration. */
static bool matters(const struct hy3_option *o, const struct hy3_config *a,
                    const struct hy3_config *b)
{
    bool of_adapter = strncmp(o->key, "lora", 4) == 0 || strcmp(o->key, "use_rslora") == 0 ||
                      strcmp(o->key, "additional_target") == 0;
    bool of_layers = strncmp(o->key, "freeze_", 7) == 0 && strcmp(o->key, "freeze_router") != 0;
    enum hy3_finetuning_type type = of_layers ? HY3_FINETUNING_freeze : HY3_FINETUNING_lora;

    return !(of_adapter || of_layers) || a->finetuning_type == type || b->finetuning_type == type;
}

static hy3_status compare_key(const struct hy3_option *o, const struct hy3_config *old,
                              const struct hy3_config *now, struct hy3_changes *changes)
{
    hy3_status status = HY3_OK;
    struct hy3_change change = {.option = o};

    HY3_TRY_DONE(hy3_option_format(o, old, &change.before));
    HY3_TRY_DONE(hy3_option_format(o, now, &change.now));
    if (strcmp(change.before, change.now) == 0 || !matters(o, old, now))
        goto done;
    if (o->type == HY3_TEXT && is_same_directory(*(char *const *)hy3_option_value(o, old),
                                                 *(char *const *)hy3_option_value(o, now)))
        goto done;
    HY3_TRY_DONE(hy3_grow(&changes->items, &changes->capacity, changes->count + 1, sizeof change));
    changes->items[changes->count++] = change;
    change = (struct hy3_change){0};
done:
    hy3_free(change.before);
    hy3_free(change.now);
    return status;
}

hy3_status hy3_config_compare(const char *text, size_t size, const struct hy3_config *now,
                              struct hy3_changes *changes)
{
    hy3_status status = HY3_OK;
    struct hy3_config old = {0};

    *changes = (struct hy3_changes){0};
    HY3_TRY_DONE(read_old(text, size, &old));
    for (const struct hy3_option *o = hy3_options; o->key; o++)
        if (o->type != HY3_GROUP)
            HY3_TRY_DONE(compare_key(o, &old, now, changes));
done:
    hy3_config_free(&old);
    if (status != HY3_OK)
        hy3_changes_free(changes);
    return status;
}
