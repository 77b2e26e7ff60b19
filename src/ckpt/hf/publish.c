/* SPDX-License-Identifier: Apache-2.0 */
/* publish.c - renames and small files of a written directory. */
#include "ckpt/hf/publish.h"

#include "base/json.h"
#include "base/memory.h"
#include "base/output.h"
#include "ckpt/hf/checksums.h"
#include "ckpt/hf/companions.h"

#include <jansson.h>

#include <dirent.h>
#include <errno.h>

enum { CONFIG_LIMIT = 16 << 20, MARK_LIMIT = 64 };

static const char index_name[] = "model.safetensors.index.json";

static const char mark_name[] = ".hy3_unfinished";

hy3_status hy3_hf_name_shard(const char *directory, const struct hy3_hf_file *file,
                             struct hy3_output *out)
{
    char path[HY3_PATH_MAX];

    HY3_TRY(hy3_path_format(path, sizeof path, "%s/%s", directory, file->name));
    return hy3_output_name(path, NULL, out);
}

/* The text of a document with the fewest digits that keep every number: 1e-5, not
 * 1.0000000000000001e-5. */
static hy3_status format_json(const json_t *document, char **out)
{
    for (size_t digits = 10; digits <= 17; digits++) {
        char *text = json_dumps(document, JSON_INDENT(2) | JSON_REAL_PRECISION(digits));
        json_t *again = text ? json_loads(text, JSON_ALLOW_NUL, NULL) : NULL;
        bool same = again && json_equal(document, again);

        json_decref(again);
        if (same || digits == 17) {
            *out = text;
            break;
        }
        free(text);
    }
    if (!*out)
        HY3_FAIL(HY3_ENOMEM, "no memory for config.json");
    return HY3_OK;
}

/* What is written is not in 8 bits, whatever the base is. Names the dtype under the keys the
 * document has, "dtype" if it has none. */
static void update_dtype(json_t *config, hy3_dtype dtype)
{
    const char *name = dtype == HY3_FP32 ? "float32" : dtype == HY3_BF16 ? "bfloat16" : "float16";
    bool old = json_object_get(config, "torch_dtype") != NULL;

    json_object_del(config, "quantization_config");
    if (old)
        json_object_set_new(config, "torch_dtype", json_string(name));
    if (!old || json_object_get(config, "dtype"))
        json_object_set_new(config, "dtype", json_string(name));
}

hy3_status hy3_hf_write_config(const struct hy3_hf_writer_options *options, json_t *files)
{
    hy3_status status = HY3_OK;
    char path[HY3_PATH_MAX], *text = NULL;
    json_t *config = NULL;
    size_t size;

    if (options->base) {
        HY3_TRY_DONE(
            hy3_path_format(path, sizeof path, "%s/config.json", hy3_hf_dir_path(options->base)));
        HY3_TRY_DONE(hy3_json_read(path, CONFIG_LIMIT, &config));
    } else if (options->config) {
        config = json_deep_copy(options->config);
    } else {
        return HY3_OK;
    }
    if (!options->adapter)
        update_dtype(config, options->dtype);
    HY3_TRY_DONE(format_json(config, &text));
    size = strlen(text);
    text[size] = '\n'; /* in place of the NUL: only `size + 1` bytes are written */
    HY3_TRY_DONE(hy3_checksums_replace(files, options->output,
                                       options->adapter ? "adapter_config.json" : "config.json",
                                       text, size + 1));
done:
    json_decref(config);
    free(text);
    return status;
}

/* The base's, else the tokenizer's, else the one that is given. */
static hy3_status write_generation_config(const struct hy3_hf_writer_options *options,
                                          json_t *files)
{
    static const char name[] = "generation_config.json";
    hy3_status status = HY3_OK;
    bool found = false;
    char *text = NULL;
    size_t size;

    if (options->base)
        HY3_TRY_DONE(hy3_hf_copy_companion(hy3_hf_dir_path(options->base), options->output, name,
                                           files, &found));
    if (options->tokenizer_directory && !options->adapter && !found)
        HY3_TRY_DONE(hy3_hf_copy_companion(options->tokenizer_directory, options->output, name,
                                           files, &found));
    if (found || !options->generation)
        goto done;
    HY3_TRY_DONE(format_json(options->generation, &text));
    size = strlen(text);
    text[size] = '\n'; /* in place of the NUL: only `size + 1` bytes are written */
    HY3_TRY_DONE(hy3_checksums_replace(files, options->output, name, text, size + 1));
done:
    free(text);
    return status;
}

hy3_status hy3_hf_write_small_files(const struct hy3_hf_writer_options *options, json_t *files)
{
    bool found;

    HY3_TRY(hy3_hf_write_config(options, files));
    HY3_TRY(write_generation_config(options, files));
    for (size_t i = 0; hy3_hf_tokenizer_files[i]; i++)
        if (options->tokenizer_directory)
            HY3_TRY(hy3_hf_copy_companion(options->tokenizer_directory, options->output,
                                          hy3_hf_tokenizer_files[i], files, &found));
    if (options->base && !options->adapter)
        HY3_TRY(hy3_hf_copy_modules(hy3_hf_dir_path(options->base), options->output, files));
    if (options->tokenizer_directory)
        HY3_TRY(hy3_hf_copy_modules(options->tokenizer_directory, options->output, files));
    return HY3_OK;
}

/* The text of the index; the caller owns *out (free). */
static hy3_status format_index(const struct hy3_hf_plan *plan, char **out)
{
    json_t *map = json_object(), *index = NULL;

    for (int i = 0; i < plan->file_count; i++)
        for (int j = plan->files[i].first; j < plan->files[i].end; j++)
            json_object_set_new(map, plan->entries[j].name, json_string(plan->files[i].name));
    index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)plan->total_bytes,
                      "weight_map", map);
    hy3_hf_plan_mark(plan, json_object_get(index, "metadata"));
    *out = index ? json_dumps(index, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    json_decref(index);
    if (!*out)
        HY3_FAIL(HY3_ENOMEM, "no memory for '%s'", index_name);
    return HY3_OK;
}

hy3_status hy3_hf_complete(const char *output, const struct hy3_hf_plan *plan, bool has_index,
                           json_t *files)
{
    hy3_status status = HY3_OK;
    char path[HY3_PATH_MAX], sha256[HY3_SHA256_TEXT], *index = NULL;

    if (has_index) {
        HY3_TRY_DONE(format_index(plan, &index));
        HY3_TRY_DONE(hy3_sha256_of(index, strlen(index), sha256));
        HY3_TRY_DONE(hy3_checksums_add(files, index_name, (int64_t)strlen(index), sha256));
    }
    HY3_TRY_DONE(hy3_checksums_write(output, files));
    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/%s", output, index_name));
    if (has_index)
        HY3_TRY_DONE(hy3_output_replace(path, index, strlen(index)));
done:
    free(index);
    return status;
}

/* Whether the file is a shard of an earlier write, complete or not. */
static bool is_weight_name(const char *name)
{
    int number, of, length = -1;

    if (strcmp(name, "model.safetensors") == 0 || strcmp(name, "model.safetensors.part") == 0)
        return true;
    if (sscanf(name, "model-%d-of-%d.safetensors%n", &number, &of, &length) < 2 || length < 0)
        return false;
    return name[length] == '\0' || strcmp(name + length, ".part") == 0;
}

static bool is_planned(const struct hy3_hf_plan *plan, const char *name)
{
    for (int i = 0; i < plan->file_count; i++)
        if (strcmp(plan->files[i].name, name) == 0)
            return true;
    return false;
}

hy3_status hy3_hf_remove_file(const char *directory, const char *name)
{
    char path[HY3_PATH_MAX];

    HY3_TRY(hy3_path_format(path, sizeof path, "%s/%s", directory, name));
    return hy3_file_remove(path);
}

/* Removes shards of an earlier write that this one did not replace. */
static hy3_status remove_stale(const char *output, const struct hy3_hf_plan *plan)
{
    hy3_status status = HY3_OK;
    const struct dirent *entry;
    DIR *directory = opendir(output);

    if (!directory)
        HY3_FAIL_DONE(HY3_EIO, "cannot open the directory '%s': %s", output, strerror(errno));
    while ((entry = readdir(directory)))
        if (is_weight_name(entry->d_name) && !is_planned(plan, entry->d_name))
            HY3_TRY_DONE(hy3_hf_remove_file(output, entry->d_name));
done:
    if (directory)
        closedir(directory);
    return status;
}

static hy3_status rename_files(const char *output, const struct hy3_hf_plan *plan)
{
    struct hy3_output shard;

    for (int i = 0; i < plan->file_count; i++) {
        HY3_TRY(hy3_hf_name_shard(output, &plan->files[i], &shard));
        HY3_TRY(hy3_output_publish(&shard));
    }
    return HY3_OK;
}

hy3_status hy3_hf_publish(const struct hy3_hf_writer_options *options,
                          const struct hy3_hf_plan *plan, json_t *files)
{
    const char *output = options->output;
    char path[HY3_PATH_MAX];

    HY3_TRY(hy3_hf_remove_file(output, HY3_CHECKSUMS));
    HY3_TRY(hy3_hf_write_small_files(options, files));
    if (!options->adapter)
        HY3_TRY(hy3_hf_remove_file(output, index_name));
    HY3_TRY(rename_files(output, plan));
    HY3_TRY(hy3_hf_complete(output, plan, plan->file_count > 1, files));
    if (!options->adapter)
        HY3_TRY(remove_stale(output, plan));
    HY3_TRY(hy3_path_format(path, sizeof path, "%s/%s", output, index_name));
    return hy3_directory_sync(path);
}

void hy3_hf_discard(const struct hy3_hf_writer_options *options, const struct hy3_hf_plan *plan)
{
    struct hy3_output shard;

    for (int i = 0; i < plan->file_count; i++)
        if (hy3_hf_name_shard(options->output, &plan->files[i], &shard) == HY3_OK)
            hy3_output_discard(&shard);
}

/* Whether the program has left its result in `output` unfinished. */
static bool is_unfinished(const char *output, const char *program)
{
    char path[HY3_PATH_MAX], *text = NULL;
    size_t size;
    bool own = false;

    if (hy3_path_format(path, sizeof path, "%s/%s", output, mark_name) == HY3_OK &&
        hy3_path_exists(path) && hy3_file_read(path, MARK_LIMIT, &text, &size) == HY3_OK)
        own = strncmp(text, program, strlen(program)) == 0;
    hy3_free(text);
    return own;
}

hy3_status hy3_hf_may_write(const char *output, const char *program)
{
    bool empty = true;

    if (hy3_path_exists(output)) {
        HY3_TRY(hy3_hf_remove_file(output, ".hy3_unfinished.part")); /* killed at once */
        HY3_TRY(hy3_directory_is_empty(output, &empty));
    }
    if (!empty && !is_unfinished(output, program))
        HY3_FAIL(HY3_EUSAGE, "the directory '%s' is not empty; name a new one", output);
    return HY3_OK;
}

hy3_status hy3_hf_begin(const char *output, const char *program)
{
    char path[HY3_PATH_MAX], text[MARK_LIMIT];

    HY3_TRY(hy3_directory_create(output));
    HY3_TRY(hy3_path_format(path, sizeof path, "%s/%s", output, mark_name));
    snprintf(text, sizeof text, "%s\n", program);
    return hy3_output_replace(path, text, strlen(text));
}

hy3_status hy3_hf_end(const char *output)
{
    char path[HY3_PATH_MAX];

    HY3_TRY(hy3_path_format(path, sizeof path, "%s/%s", output, mark_name));
    /* with the mark the command can be repeated, so all else stands before it goes; a mark that a
     * power failure brings back does no harm */
    HY3_TRY(hy3_directory_sync(path));
    return hy3_hf_remove_file(output, mark_name);
}
