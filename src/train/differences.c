/* SPDX-License-Identifier: Apache-2.0 */
/* differences.c - settings key by key; data, steps and batch by what they come to. */
#include "train/differences.h"

#include "base/log.h"
#include "base/memory.h"
#include "config/compare.h"

#include <stdarg.h>

enum { CONFIG_LIMIT = 1 << 20 };

/* A difference that is reported, and what it means. */
static void note(struct hy3_situation *s, enum hy3_distance distance, char *text, size_t size,
                 const char *format, ...) __attribute__((format(printf, 5, 6)));

static void note(struct hy3_situation *s, enum hy3_distance distance, char *text, size_t size,
                 const char *format, ...)
{
    size_t used = strlen(text);
    va_list args;

    if (distance > s->distance)
        s->distance = distance;
    if (used + 256 > size)
        return;
    used += (size_t)snprintf(text + used, size - used, "\n  ");
    va_start(args, format);
    vsnprintf(text + used, size - used, format, args);
    va_end(args);
}

/* Keys that change no weight, but which checkpoint is the result or where the run ends. */
static bool chooses(const struct hy3_config *config, const char *key)
{
    static const char *const keys[] = {"eval_data_file", "eval_dataset",  "eval_strategy",
                                       "eval_steps",     "save_strategy", "save_steps"};

    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (strcmp(key, keys[i]) == 0)
            return hy3_config_chooses(config);
    return false;
}

static void note_change(struct hy3_situation *s, const struct hy3_config *config,
                        const struct hy3_change *c, char *text, size_t size)
{
    const char *key = c->option->key;
    enum hy3_distance distance =
        c->option->resume == HY3_RESUME_FIXED                                ? HY3_OTHER
        : c->option->resume == HY3_RESUME_MAY_CHANGE || chooses(config, key) ? HY3_CHANGED
                                                                             : HY3_SAME;

    if (strcmp(key, "output_dir") == 0 || strcmp(key, "overwrite_output_dir") == 0 ||
        strcmp(key, "resume_from_checkpoint") == 0)
        return;
    /* what these come to is compared as the number of steps and the global batch */
    if (s->planned > 0 && (strcmp(key, "per_device_train_batch_size") == 0 ||
                           strcmp(key, "gradient_accumulation_steps") == 0))
        distance = HY3_SAME;
    if (s->planned > 0 && config->max_epochs <= 0 && /* else the schedule has others */
        (strcmp(key, "max_steps") == 0 || strcmp(key, "num_train_epochs") == 0))
        distance = HY3_SAME;
    note(s, distance, text, size, "%s: %.60s -> %.60s%s", key, *c->before ? c->before : "not set",
         *c->now ? c->now : "not set", distance == HY3_OTHER ? " (another run)" : "");
}

hy3_status hy3_differences_find(const struct hy3_config *config, const struct hy3_mark *mark,
                                const struct hy3_run_facts *facts, struct hy3_situation *s,
                                char *text, size_t size)
{
    hy3_status status = HY3_OK;
    struct hy3_changes changes = {0};
    char path[HY3_PATH_MAX], *old = NULL;
    size_t bytes;
    bool is_full;

    *text = '\0';
    s->distance = HY3_SAME;
    if (!s->has_results)
        return HY3_OK;
    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/config.cfg", config->output_dir));
    if (hy3_file_read(path, CONFIG_LIMIT, &old, &bytes) != HY3_OK ||
        hy3_config_compare(old, bytes, config, &changes) != HY3_OK)
        note(s, HY3_OTHER, text, size, "its settings are not known: %.400s", hy3_error_text());
    for (size_t i = 0; i < changes.count; i++)
        note_change(s, config, &changes.items[i], text, size);
    if (mark->total_steps == 0)
        goto done; /* an older version's: its state is compared when it is loaded */
    if (mark->global_batch != facts->global_batch)
        note(s, HY3_OTHER, text, size,
             "global batch: %lld -> %lld samples (choose per_device_train_batch_size and "
             "gradient_accumulation_steps so that their product with the ranks is %lld)",
             (long long)mark->global_batch, (long long)facts->global_batch,
             (long long)mark->global_batch);
    if (mark->samples != facts->samples || mark->data != facts->data)
        note(s, HY3_OTHER, text, size, "training data: %lld samples -> %lld samples%s",
             (long long)mark->samples, (long long)facts->samples,
             mark->samples == facts->samples ? " of other content" : "");
    is_full = config->finetuning_type == HY3_FINETUNING_full && !config->freeze_router;
    if (mark->base != facts->base)
        note(s, is_full ? HY3_CHANGED : HY3_OTHER, text, size,
             "the base '%.200s' has other weights", config->model_name_or_path);
done:
    hy3_changes_free(&changes);
    hy3_free(old);
    return status;
}

void hy3_differences_tell(const char *path, const char *saved, const struct hy3_config *config)
{
    struct hy3_situation s = {.planned = 1}; /* the state says what steps and batch come to */
    struct hy3_changes changes = {0};
    char text[HY3_ERROR_MAX - 1024] = "";

    if (hy3_config_compare(saved, strlen(saved), config, &changes) != HY3_OK)
        hy3_log(HY3_LOG_WARN, "the settings of '%s' are not known: %.400s", path, hy3_error_text());
    for (size_t i = 0; i < changes.count; i++)
        note_change(&s, config, &changes.items[i], text, sizeof text);
    if (*text)
        hy3_log(s.distance == HY3_OTHER ? HY3_LOG_WARN : HY3_LOG_INFO,
                "settings that differ from those of '%s', which the run goes on from:%s", path,
                text);
    hy3_changes_free(&changes);
}
