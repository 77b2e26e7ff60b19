/* SPDX-License-Identifier: Apache-2.0 */
/* named_data.c - from names to files; one rank looks, since a directory may change meanwhile. */
#include "data/named_data.h"

#include "base/expand.h"
#include "base/memory.h"
#include "comm/agree.h"
#include "comm/comm.h"

#include <strings.h>

void hy3_named_data_free(struct hy3_named_data *data)
{
    for (int f = 0; data->files && f < data->count; f++)
        hy3_free(data->files[f]);
    hy3_free(data->files);
    hy3_free(data->forms);
    hy3_free(data->sets);
    hy3_free(data->limits);
    *data = (struct hy3_named_data){0};
}

/* Token files and rejected lines lie beside the data where no other place is named. */
static bool is_own(const char *name)
{
    static const char *const names[] = {"train.h5", "eval.h5", "train.rejected.jsonl",
                                        "eval.rejected.jsonl"};

    if (strncmp(name, "train.parts.", 12) == 0 || strncmp(name, "eval.parts.", 11) == 0)
        return true;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t length = strlen(names[i]);

        if (strncmp(name, names[i], length) == 0 &&
            (name[length] == '\0' || (name[length] == '.' && hy3_ends_with(name, ".part"))))
            return true;
    }
    return false;
}

/* The ending of a name; JSON has several. */
static const char *kind_of(const char *path)
{
    static const char *const json[] = {".jsonl", ".json", ".ndjson"};
    const char *ending = strrchr(hy3_path_name(path), '.');

    for (size_t i = 0; ending && i < sizeof json / sizeof *json; i++)
        if (strcasecmp(ending, json[i]) == 0)
            return "JSON";
    return ending ? ending : "";
}

static hy3_status check_kinds(const char *directory, const struct hy3_paths *paths)
{
    for (int i = 1; i < paths->count; i++)
        if (strcasecmp(kind_of(paths->items[0]), kind_of(paths->items[i])) != 0)
            HY3_FAIL(HY3_EUSAGE,
                     "the directory '%s' has files of more than one kind: '%s' and '%s'; name a "
                     "pattern, such as '%s/*.jsonl'",
                     directory, hy3_path_name(paths->items[0]), hy3_path_name(paths->items[i]),
                     directory);
    return HY3_OK;
}

static hy3_status add_file(struct hy3_named_data *data, const char *path,
                           const struct hy3_form *form, int set, int64_t limit)
{
    size_t count = (size_t)data->count;

    HY3_TRY(hy3_grow(&data->files, &data->capacity[0], count + 1, sizeof *data->files));
    HY3_TRY(hy3_grow(&data->forms, &data->capacity[1], count + 1, sizeof *data->forms));
    HY3_TRY(hy3_grow(&data->sets, &data->capacity[2], count + 1, sizeof *data->sets));
    HY3_TRY(hy3_grow(&data->limits, &data->capacity[3], count + 1, sizeof *data->limits));
    HY3_TRY(hy3_strdup(path, &data->files[count]));
    data->forms[count] = *form;
    data->sets[count] = set;
    data->limits[count] = limit;
    data->count++;
    return HY3_OK;
}

hy3_status hy3_named_data_add(struct hy3_named_data *data, const char *path,
                              const struct hy3_form *form, int set, int64_t limit)
{
    hy3_status status = HY3_OK;
    struct hy3_paths paths = {0};

    HY3_TRY_DONE(hy3_path_expand(path, is_own, &paths));
    if (!hy3_path_is_pattern(path))
        HY3_TRY_DONE(check_kinds(path, &paths));
    for (int i = 0; i < paths.count; i++)
        HY3_TRY_DONE(add_file(data, paths.items[i], form, set, limit));
done:
    hy3_paths_free(&paths);
    return status;
}

hy3_status hy3_named_data_list(char *const *paths, int count, const struct hy3_form *form,
                               struct hy3_named_data *out)
{
    hy3_status status = HY3_OK;
    char path[HY3_PATH_MAX];
    int64_t limit;

    *out = (struct hy3_named_data){0};
    for (int i = 0; i < count; i++) {
        HY3_TRY_DONE(hy3_path_split_count(paths[i], path, &limit));
        HY3_TRY_DONE(hy3_named_data_add(out, path, form, i, limit));
    }
done:
    if (status != HY3_OK)
        hy3_named_data_free(out);
    return status;
}

/* Rank 0 has `data`; room for as much elsewhere. names: of all files, one behind the other. */
static hy3_status make_room(struct hy3_named_data *data, const int64_t facts[2], bool is_root,
                            char **names)
{
    size_t count = (size_t)facts[0], at = 0;

    HY3_TRY(hy3_alloc(names, (size_t)facts[1], 1));
    for (size_t f = 0; f < count && is_root; f++) {
        size_t size = strlen(data->files[f]) + 1;

        memcpy(*names + at, data->files[f], size);
        at += size;
    }
    if (is_root)
        return HY3_OK;
    HY3_TRY(hy3_alloc(&data->files, count, sizeof *data->files));
    HY3_TRY(hy3_alloc(&data->forms, count, sizeof *data->forms));
    HY3_TRY(hy3_alloc(&data->sets, count, sizeof *data->sets));
    return hy3_alloc(&data->limits, count, sizeof *data->limits);
}

hy3_status hy3_named_data_share(MPI_Comm comm, struct hy3_named_data *data)
{
    static const char phase[] = "locating the data";
    hy3_status status = HY3_OK;
    bool is_root = hy3_rank(comm) == 0;
    int64_t facts[2] = {data->count}; /* files, bytes of their names */
    size_t count;
    char *names = NULL, *at;

    for (int f = 0; f < data->count; f++)
        facts[1] += (int64_t)strlen(data->files[f]) + 1;
    hy3_broadcast(comm, 0, facts, sizeof facts, phase);
    count = (size_t)facts[0];
    HY3_AGREE_DONE(comm, make_room(data, facts, is_root, &names), phase);
    hy3_broadcast(comm, 0, names, (size_t)facts[1], phase);
    hy3_broadcast(comm, 0, data->forms, count * sizeof *data->forms, phase);
    hy3_broadcast(comm, 0, data->sets, count * sizeof *data->sets, phase);
    hy3_broadcast(comm, 0, data->limits, count * sizeof *data->limits, phase);
    at = names;
    for (; data->count < (int)count && status == HY3_OK; at += strlen(at) + 1) {
        status = hy3_strdup(at, &data->files[data->count]);
        data->count += status == HY3_OK;
    }
    HY3_AGREE_DONE(comm, status, phase);
done:
    hy3_free(names);
    return status;
}
