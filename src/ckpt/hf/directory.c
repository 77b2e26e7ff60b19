/* SPDX-License-Identifier: Apache-2.0 */
/* directory.c - the index of a directory. Everything in it is checked before use. */
#include "ckpt/hf/directory.h"

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/plural.h"

#include <jansson.h>

#include <dirent.h>
#include <errno.h>
#include <math.h>

enum {
    INDEX_LIMIT = 64 << 20,  /* bytes; the published model's index has 6 MB */
    INDEX_MEMORY = 64 << 20, /* of its JSON values, for 300,000 tensors */
};

static const char index_name[] = "model.safetensors.index.json";
static const char single_name[] = "model.safetensors";

struct entry {
    char *name;
    int shard;
};

struct hy3_hf_dir {
    char *path;
    enum hy3_names names;
    int shards, tensors;
    size_t shard_capacity;
    char **shard_names;    /* sorted */
    struct entry *entries; /* sorted by name */
    int64_t total_bytes;
};

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int compare_entries(const void *a, const void *b)
{
    return strcmp(((const struct entry *)a)->name, ((const struct entry *)b)->name);
}

/* A shard must be a file in the directory itself. */
static hy3_status check_shard_name(const char *index, const char *tensor, const json_t *value)
{
    const char *name = json_string_value(value);

    if (!name)
        HY3_FAIL(HY3_EFORMAT, "%s: the shard of tensor '%.96s' is not a file name", index, tensor);
    if (strlen(name) != json_string_length(value) || strchr(name, '/') || name[0] == '.' ||
        !hy3_ends_with(name, ".safetensors"))
        HY3_FAIL(HY3_EFORMAT,
                 "%s: the shard '%.200s' of tensor '%.96s' is not the name of a "
                 "safetensors file in this directory",
                 index, name, tensor);
    return HY3_OK;
}

static int find_shard(const struct hy3_hf_dir *dir, const char *name)
{
    char **found = bsearch(&name, dir->shard_names, (size_t)dir->shards, sizeof *dir->shard_names,
                           compare_texts);

    return found ? (int)(found - dir->shard_names) : -1;
}

/* Fills the list of shards from the values of the map: each once, sorted. */
static hy3_status list_shards(struct hy3_hf_dir *dir, const json_t *map, const char *index)
{
    hy3_status status = HY3_OK;
    const char *tensor, **names = NULL, *last = NULL;
    size_t count = 0;
    json_t *value;

    HY3_TRY_DONE(hy3_alloc(&names, json_object_size(map), sizeof *names));
    json_object_foreach((json_t *)map, tensor, value)
    {
        HY3_TRY_DONE(check_shard_name(index, tensor, value));
        names[count++] = json_string_value(value);
    }
    qsort(names, count, sizeof *names, compare_texts);
    for (size_t i = 0; i < count; i++) {
        if (last && strcmp(last, names[i]) == 0)
            continue;
        last = names[i];
        HY3_TRY_DONE(hy3_grow(&dir->shard_names, &dir->shard_capacity, (size_t)dir->shards + 1,
                              sizeof *dir->shard_names));
        HY3_TRY_DONE(hy3_strdup(last, &dir->shard_names[dir->shards]));
        dir->shards++;
    }
done:
    hy3_free(names);
    return status;
}

static hy3_status read_map(struct hy3_hf_dir *dir, const json_t *map, const char *index)
{
    const char *tensor;
    json_t *value;

    if (!json_is_object(map))
        HY3_FAIL(HY3_EFORMAT, "%s: 'weight_map' is missing or not an object", index);
    if (json_object_size(map) == 0)
        HY3_FAIL(HY3_EFORMAT, "%s: 'weight_map' lists no tensor", index);
    HY3_TRY(list_shards(dir, map, index));
    HY3_TRY(hy3_alloc(&dir->entries, json_object_size(map), sizeof *dir->entries));
    json_object_foreach((json_t *)map, tensor, value)
    {
        struct entry *entry = &dir->entries[dir->tensors];

        HY3_TRY(hy3_strdup(tensor, &entry->name));
        entry->shard = find_shard(dir, json_string_value(value));
        dir->tensors++;
    }
    return HY3_OK;
}

static hy3_status check_shards_exist(const struct hy3_hf_dir *dir, const char *index)
{
    char path[HY3_PATH_MAX];

    for (int i = 0; i < dir->shards; i++) {
        HY3_TRY(hy3_path_format(path, sizeof path, "%s/%s", dir->path, dir->shard_names[i]));
        if (!hy3_path_exists(path))
            HY3_FAIL(HY3_EFORMAT,
                     "%s: the shard '%s' is not in the directory; the download or copy is "
                     "incomplete",
                     index, dir->shard_names[i]);
    }
    return HY3_OK;
}

static hy3_status read_index(struct hy3_hf_dir *dir, const char *index)
{
    hy3_status status = HY3_OK;
    json_t *document = NULL;
    const json_t *metadata, *total;
    json_error_t error;
    char *text = NULL;
    size_t size;

    HY3_TRY_DONE(hy3_file_read(index, INDEX_LIMIT, &text, &size));
    HY3_TRY_DONE(hy3_json_bound(text, size, index, INDEX_MEMORY));
    document = json_loadb(text, size, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error);
    if (!document)
        HY3_FAIL_DONE(HY3_EFORMAT, "%s:%d:%d: not valid JSON: %s", index, error.line, error.column,
                      error.text);
    metadata = json_object_get(document, "metadata");
    if (!json_is_object(metadata))
        HY3_FAIL_DONE(HY3_EFORMAT, "%s: 'metadata' is missing or not an object", index);
    total = json_object_get(metadata, "total_size");
    if (json_is_number(total) && fabs(json_number_value(total)) < 0x1p62)
        dir->total_bytes = (int64_t)json_number_value(total);
    HY3_TRY_DONE(read_map(dir, json_object_get(document, "weight_map"), index));
    HY3_TRY_DONE(check_shards_exist(dir, index));
done:
    json_decref(document);
    hy3_free(text);
    return status;
}

/* The directory of one file: its header is the index. */
static hy3_status read_single(struct hy3_hf_dir *dir, const char *path)
{
    hy3_status status = HY3_OK;
    struct hy3_shard *shard = NULL;

    HY3_TRY_DONE(hy3_shard_open(path, &shard));
    HY3_TRY_DONE(hy3_grow(&dir->shard_names, &dir->shard_capacity, 1, sizeof *dir->shard_names));
    HY3_TRY_DONE(hy3_strdup(single_name, &dir->shard_names[0]));
    dir->shards = 1;
    HY3_TRY_DONE(hy3_alloc(&dir->entries, (size_t)hy3_shard_count(shard), sizeof *dir->entries));
    for (int i = 0; i < hy3_shard_count(shard); i++) {
        HY3_TRY_DONE(hy3_strdup(hy3_shard_tensor(shard, i)->name, &dir->entries[i].name));
        dir->tensors++;
    }
done:
    hy3_shard_close(shard);
    return status;
}

hy3_status hy3_hf_dir_expect_model(const char *path)
{
    if (hy3_path_exists_in(path, index_name) || hy3_path_exists_in(path, single_name))
        return HY3_OK;
    if (hy3_path_exists_in(path, "state.h5"))
        HY3_FAIL(HY3_EFORMAT,
                 "'%s' is a training checkpoint; make a model of it: hy3_export %s OUTPUT_DIR",
                 path, path);
    if (hy3_path_exists_in(path, "adapter_config.json"))
        HY3_FAIL(HY3_EFORMAT,
                 "'%s' is an adapter; a model is expected here (hy3_merge makes one of an adapter "
                 "and its base)",
                 path);
    return HY3_OK;
}

/* Says what the directory has instead of an index. */
static hy3_status no_weights(const char *path)
{
    DIR *directory = opendir(path);
    const struct dirent *entry;
    int shards = 0, others = 0;

    if (!directory)
        HY3_FAIL(HY3_EIO, "cannot open the directory '%s': %s", path, strerror(errno));
    while ((entry = readdir(directory))) {
        shards += hy3_ends_with(entry->d_name, ".safetensors");
        others += hy3_ends_with(entry->d_name, ".bin") || hy3_ends_with(entry->d_name, ".pt");
    }
    closedir(directory);
    if (shards > 0)
        HY3_FAIL(HY3_EFORMAT,
                 "'%s' has %d safetensors file%s but no '%s'; copy it from the place the "
                 "files came from",
                 path, shards, hy3_s(shards), index_name);
    HY3_FAIL(HY3_EFORMAT, "'%s' has no '%s' and no '%s'%s", path, index_name, single_name,
             others > 0 ? "; its .bin or .pt files must be converted to safetensors first" : "");
}

static hy3_status read_directory(struct hy3_hf_dir *dir)
{
    char index[HY3_PATH_MAX], single[HY3_PATH_MAX], why[HY3_PATH_WHY];

    HY3_TRY(hy3_path_format(index, sizeof index, "%s/%s", dir->path, index_name));
    HY3_TRY(hy3_path_format(single, sizeof single, "%s/%s", dir->path, single_name));
    if (hy3_path_fault(dir->path, HY3_PATH_INPUT, why, sizeof why))
        HY3_FAIL(HY3_EIO, "the model directory '%s' %s", dir->path, why);
    if (hy3_path_exists(index)) {
        HY3_TRY(read_index(dir, index));
        if (hy3_path_exists(single) && find_shard(dir, single_name) < 0)
            HY3_FAIL(HY3_EFORMAT, "'%s' has both '%s' and '%s'; remove the one that is stale",
                     dir->path, single_name, index_name);
    } else if (hy3_path_exists(single)) {
        HY3_TRY(read_single(dir, single));
    } else {
        HY3_TRY(no_weights(dir->path));
    }
    return HY3_OK;
}

/* The layout of the names; a model without experts has none of the names that differ. */
static enum hy3_names detect_names(const struct hy3_hf_dir *dir)
{
    bool outer = false;

    for (int i = 0; i < dir->tensors; i++) {
        struct hy3_name name;

        if (!hy3_name_parse(dir->entries[i].name, &name))
            continue;
        if (name.is_inner)
            return HY3_INNER;
        outer |= name.is_outer;
    }
    return outer ? HY3_OUTER : HY3_INNER;
}

static hy3_status open_dir(const char *path, bool reads, struct hy3_hf_dir **out)
{
    hy3_status status = HY3_OK;
    struct hy3_hf_dir *dir = NULL;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&dir, 1, sizeof *dir));
    dir->total_bytes = -1;
    HY3_TRY_DONE(hy3_strdup(path, &dir->path));
    if (reads)
        HY3_TRY_DONE(read_directory(dir));
    if (dir->tensors > 0)
        qsort(dir->entries, (size_t)dir->tensors, sizeof *dir->entries, compare_entries);
    dir->names = detect_names(dir);
    *out = HY3_TAKE(dir);
done:
    hy3_hf_dir_close(dir);
    return status;
}

hy3_status hy3_hf_dir_open(const char *path, struct hy3_hf_dir **out)
{
    return open_dir(path, true, out);
}

hy3_status hy3_hf_dir_open_dummy(const char *path, struct hy3_hf_dir **out)
{
    return open_dir(path, false, out);
}

void hy3_hf_dir_close(struct hy3_hf_dir *dir)
{
    if (!dir)
        return;
    for (int i = 0; i < dir->tensors; i++)
        hy3_free(dir->entries[i].name);
    for (int i = 0; i < dir->shards; i++)
        hy3_free(dir->shard_names[i]);
    hy3_free(dir->entries);
    hy3_free(dir->shard_names);
    hy3_free(dir->path);
    hy3_free(dir);
}

const char *hy3_hf_dir_path(const struct hy3_hf_dir *dir)
{
    return dir->path;
}

enum hy3_names hy3_hf_dir_names(const struct hy3_hf_dir *dir)
{
    return dir->names;
}

int hy3_hf_dir_shards(const struct hy3_hf_dir *dir)
{
    return dir->shards;
}

const char *hy3_hf_dir_shard_name(const struct hy3_hf_dir *dir, int shard)
{
    return dir->shard_names[shard];
}

int hy3_hf_dir_tensors(const struct hy3_hf_dir *dir)
{
    return dir->tensors;
}

const char *hy3_hf_dir_tensor(const struct hy3_hf_dir *dir, int i, int *shard)
{
    *shard = dir->entries[i].shard;
    return dir->entries[i].name;
}

int hy3_hf_dir_find(const struct hy3_hf_dir *dir, const char *name)
{
    struct entry key = {.name = (char *)name};
    const struct entry *found = dir->tensors == 0
                                    ? NULL
                                    : bsearch(&key, dir->entries, (size_t)dir->tensors,
                                              sizeof *dir->entries, compare_entries);

    return found ? (int)(found - dir->entries) : -1;
}

int64_t hy3_hf_dir_total_bytes(const struct hy3_hf_dir *dir)
{
    return dir->total_bytes;
}

hy3_status hy3_hf_dir_open_shard(const struct hy3_hf_dir *dir, int shard, struct hy3_shard **out)
{
    char path[HY3_PATH_MAX];

    *out = NULL;
    HY3_TRY(hy3_path_format(path, sizeof path, "%s/%s", dir->path, dir->shard_names[shard]));
    return hy3_shard_open(path, out);
}
