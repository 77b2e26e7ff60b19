/* SPDX-License-Identifier: Apache-2.0 */
/* previous.c - sets aside by renames. */
#include "train/previous.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "base/planted.h"
#include "ckpt/hf/companions.h"
#include "ckpt/state/list.h"
#include "train/mark.h"

#include <dirent.h>
#include <errno.h>
#include <unistd.h>

/* Names that nobody else gives: what bears them may be removed. */
#define REMOVED  ".hy3_removed_previous"
#define REPLACED ".hy3_replaced_"
#define MADE     ".hy3_made_previous"

/* Names of the run itself, then those of its model or adapter. */
static const char *const run_names[] = {"config.cfg", "train_log.jsonl", "loss.png", NULL};

static const char *const model_names[] = {"model.safetensors",
                                          "model.safetensors.index.json",
                                          "adapter_model.safetensors",
                                          "adapter_config.json",
                                          "config.json",
                                          "generation_config.json",
                                          "checksums.json",
                                          NULL};

static bool is_among(const char *const *names, const char *name)
{
    for (size_t i = 0; names[i]; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

/* The name without ".part". */
static void strip(const char *name, char out[256])
{
    snprintf(out, 256, "%s", name);
    if (hy3_ends_with(out, ".part"))
        out[strlen(out) - strlen(".part")] = '\0';
}

static bool is_model(const char *name)
{
    int number, of, length = -1;
    char final[256];

    strip(name, final);
    if (is_among(model_names, final) || hy3_hf_is_tokenizer_file(final))
        return true;
    return sscanf(final, "model-%d-of-%d.safetensors%n", &number, &of, &length) == 2 &&
           length > 0 && final[length] == '\0';
}

bool hy3_previous_is_result(const char *name)
{
    char final[256];

    strip(name, final);
    return hy3_checkpoint_step(final) >= 0 || is_among(run_names, final) || is_model(name);
}

static hy3_status below(const char *directory, const char *name, char out[HY3_PATH_MAX])
{
    return hy3_path_format(out, HY3_PATH_MAX, "%s/%s", directory, name);
}

static hy3_status move(const char *from, const char *to, const char *name)
{
    char source[HY3_PATH_MAX], target[HY3_PATH_MAX];

    HY3_TRY(below(from, name, source));
    HY3_TRY(below(to, name, target));
    return hy3_file_rename(source, target);
}

/* The names in a directory, so that moving files does not disturb the reading; the caller owns
 * *names, of 256 bytes each. */
static hy3_status read_names(const char *directory, char (**names)[256], size_t *count)
{
    hy3_status status = HY3_OK;
    DIR *open = opendir(directory);
    const struct dirent *entry;
    size_t capacity = 0;

    *names = NULL;
    *count = 0;
    if (!open)
        HY3_FAIL(HY3_EIO, "cannot open the directory '%s': %s", directory, strerror(errno));
    while ((entry = readdir(open))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        HY3_TRY_DONE(hy3_grow(names, &capacity, *count + 1, sizeof **names));
        snprintf((*names)[(*count)++], sizeof **names, "%s", entry->d_name);
    }
done:
    closedir(open);
    return status;
}

/* Whether something stands there that hy3 did not make. */
static bool is_foreign(const char *path)
{
    char mark[HY3_PATH_MAX];

    return hy3_path_exists(path) &&
           (below(path, HY3_MARK_NAME, mark) != HY3_OK || !hy3_path_exists(mark));
}

/* Moves back all that is in previous.part; the mark, without which it is nobody's, last. What has
 * its name in the directory is a copy, or of the run that had no checkpoint: its place is taken. */
static hy3_status put_back(const char *part, const char *directory)
{
    hy3_status status = HY3_OK;
    char(*names)[256] = NULL, path[HY3_PATH_MAX];
    size_t count;

    HY3_TRY_DONE(read_names(part, &names, &count));
    for (size_t i = 0; i < count; i++) {
        HY3_TRY_DONE(below(directory, names[i], path));
        if (strcmp(names[i], HY3_MARK_NAME) != 0 && !hy3_path_is_directory(path))
            HY3_TRY_DONE(move(part, directory, names[i]));
    }
    HY3_TRY_DONE(move(part, directory, HY3_MARK_NAME));
    HY3_TRY_DONE(hy3_directory_remove(part));
done:
    hy3_free(names);
    return status;
}

/* A .hy3_replaced_checkpoint-N is what hy3_previous_replace was replacing: its successor stands, or
 * it gets its name back. */
static hy3_status settle_replaced(const char *directory, const char *name, bool *restored)
{
    const char *final = name + sizeof REPLACED - 1;
    char path[HY3_PATH_MAX], replaced[HY3_PATH_MAX];

    if (strncmp(name, REPLACED, sizeof REPLACED - 1) != 0 || hy3_checkpoint_step(final) < 0)
        return HY3_OK;
    HY3_TRY(below(directory, name, replaced));
    HY3_TRY(below(directory, final, path));
    *restored = true;
    return hy3_path_exists(path) ? hy3_directory_remove(replaced) : hy3_file_rename(replaced, path);
}

hy3_status hy3_previous_restore(const char *directory, bool *restored)
{
    hy3_status status = HY3_OK;
    char(*names)[256] = NULL, part[HY3_PATH_MAX];
    size_t count = 0;

    *restored = false;
    HY3_TRY_DONE(below(directory, "previous.part", part));
    if (is_foreign(part) && rmdir(part) != 0)
        HY3_FAIL_DONE(HY3_EUSAGE, "'%s' is in the way, and hy3 did not make it; move it elsewhere",
                      part);
    if (hy3_path_exists(part)) {
        HY3_TRY_DONE(put_back(part, directory));
        *restored = true;
    }
    HY3_TRY_DONE(read_names(directory, &names, &count));
    for (size_t i = 0; i < count; i++)
        HY3_TRY_DONE(settle_replaced(directory, names[i], restored));
done:
    hy3_free(names);
    return status;
}

static bool is_taken(const struct hy3_previous_options *o, const char *name)
{
    int64_t step = hy3_checkpoint_step(name);

    if (step >= 0)
        return step > o->after;
    if (o->takes_run)
        return hy3_previous_is_result(name);
    return o->takes_model && (is_model(name) || strcmp(name, "loss.png") == 0);
}

static hy3_status check_place(const char *directory)
{
    char previous[HY3_PATH_MAX];

    HY3_TRY(below(directory, "previous", previous));
    if (is_foreign(previous))
        HY3_FAIL(HY3_EUSAGE,
                 "'%s' is where the earlier run would be set aside, but hy3 did not make it; move "
                 "it elsewhere",
                 previous);
    return HY3_OK;
}

/* For the message: checkpoints, and the model as one. */
static void add_name(char *names, size_t size, const char *name)
{
    size_t used = strlen(names);
    const char *shown = strncmp(name, "adapter_model.", 14) == 0 ? "adapter"
                        : strncmp(name, "model", 5) == 0         ? "model"
                                                                 : name;

    if ((hy3_checkpoint_step(name) >= 0 || shown != name) && !strstr(names, shown))
        snprintf(names + used, size - used, "%s%s", used > 0 ? ", " : "", shown);
}

/* Copies of what the run goes on with, for whoever looks at the set aside part alone. */
static hy3_status copy_beside(const char *directory, const char *part)
{
    static const char *const names[] = {"config.cfg", "train_log.jsonl"};
    char from[HY3_PATH_MAX], to[HY3_PATH_MAX];

    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        HY3_TRY(below(directory, names[i], from));
        HY3_TRY(below(part, names[i], to));
        if (hy3_path_exists(from))
            HY3_TRY(hy3_output_copy(from, to));
    }
    return HY3_OK;
}

/* previous.part is complete: it takes the place of the generation before. */
static hy3_status complete(const char *directory, const char *part)
{
    char previous[HY3_PATH_MAX];

    HY3_TRY(below(directory, "previous", previous));
    HY3_TRY(hy3_previous_remove(directory));
    return hy3_file_rename(part, previous);
}

/* Makes previous.part with a mark in it: it never stands without. */
static hy3_status make_part(const char *directory, const char *part)
{
    char made[HY3_PATH_MAX];
    struct hy3_mark mark;
    bool found;

    HY3_TRY(check_place(directory));
    HY3_TRY(hy3_mark_read(directory, &mark, &found));
    HY3_TRY(below(directory, MADE, made));
    HY3_TRY(hy3_directory_remove(made));
    HY3_TRY(hy3_directory_create_new(made, false));
    HY3_TRY(hy3_mark_write(made, &mark));
    return hy3_file_rename(made, part);
}

hy3_status hy3_previous_set_aside(const char *directory, const struct hy3_previous_options *o,
                                  char *described, size_t size)
{
    hy3_status status = HY3_OK;
    char(*names)[256] = NULL, part[HY3_PATH_MAX];
    size_t count = 0, moved = 0;

    *described = '\0';
    HY3_TRY_DONE(below(directory, "previous.part", part));
    HY3_TRY_DONE(read_names(directory, &names, &count));
    for (size_t i = 0; i < count; i++) {
        if (!is_taken(o, names[i]))
            continue;
        if (moved++ == 0) {
            HY3_TRY_DONE(make_part(directory, part));
            if (!o->takes_run)
                HY3_TRY_DONE(copy_beside(directory, part));
        }
        HY3_TRY_DONE(move(directory, part, names[i]));
        add_name(described, size, names[i]);
    }
    if (moved > 0)
        HY3_TRY_DONE(complete(directory, part));
done:
    hy3_free(names);
    return status;
}

hy3_status hy3_previous_bring_back(const char *directory)
{
    char previous[HY3_PATH_MAX], part[HY3_PATH_MAX];

    HY3_TRY(check_place(directory));
    HY3_TRY(below(directory, "previous", previous));
    HY3_TRY(below(directory, "previous.part", part));
    HY3_TRY(hy3_file_rename(previous, part));
    return put_back(part, directory);
}

hy3_status hy3_previous_remove(const char *directory)
{
    char previous[HY3_PATH_MAX], old[HY3_PATH_MAX];

    HY3_TRY(below(directory, "previous", previous));
    HY3_TRY(below(directory, REMOVED, old));
    HY3_TRY(hy3_directory_remove(old));
    if (!hy3_path_exists(previous) || is_foreign(previous))
        return HY3_OK;
    HY3_TRY(hy3_file_rename(previous, old));
    return hy3_directory_remove(old);
}

hy3_status hy3_previous_replace(const char *directory, const char *part, const char *name)
{
    char replaced[HY3_PATH_MAX], from[HY3_PATH_MAX], to[HY3_PATH_MAX];

    HY3_TRY(below(directory, part, from));
    HY3_TRY(below(directory, name, to));
    HY3_TRY(hy3_planted_refuse(to));
    if (!hy3_path_exists(to))
        return hy3_file_rename(from, to);
    HY3_TRY(hy3_path_format(replaced, sizeof replaced, "%s/" REPLACED "%s", directory, name));
    HY3_TRY(hy3_directory_remove(replaced));
    HY3_TRY(hy3_file_rename(to, replaced));
    HY3_TRY(hy3_file_rename(from, to));
    return hy3_directory_remove(replaced);
}
