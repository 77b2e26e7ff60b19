/* SPDX-License-Identifier: Apache-2.0 */
/* dataset_info.c - names to files; an entry that hy3 would read wrongly is refused. */
#include "data/dataset_info.h"

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"

#include <ctype.h>
#include <errno.h>
#include <unistd.h>

void hy3_dataset_info_free(char **files, int count)
{
    for (int f = 0; files && f < count; f++)
        hy3_free(files[f]);
    hy3_free(files);
}

/* A key that, if present and not null, must have the value that hy3 assumes. */
static hy3_status check_value(const json_t *object, const char *key, const char *wanted,
                              const char *name)
{
    const json_t *value = json_object_get(object, key);

    if (!value || json_is_null(value) ||
        (json_is_string(value) && strcmp(json_string_value(value), wanted) == 0))
        return HY3_OK;
    HY3_FAIL(HY3_EUSAGE,
             "dataset '%s': \"%s\" must be \"%s\"; rewrite the file as lines of "
             "{\"messages\": [{\"role\": …, \"content\": …}]}",
             name, key, wanted);
}

static hy3_status check_columns(const json_t *entry, const char *name)
{
    json_t *columns = json_object_get(entry, "columns"), *value;
    const char *key;

    json_object_foreach(columns, key, value)
    {
        if (strcmp(key, "messages") != 0 && strcmp(key, "tools") != 0 && !json_is_null(value))
            HY3_FAIL(HY3_EUSAGE,
                     "dataset '%s': the column \"%s\" is not read; only \"messages\" and "
                     "\"tools\" are",
                     name, key);
        HY3_TRY(check_value(columns, key, key, name));
    }
    return HY3_OK;
}

/* "sharegpt" with the tags of OpenAI's form; roles that the tags rename are refused line by line if
 * they occur. */
static hy3_status check_entry(const json_t *entry, const char *name)
{
    static const char *const tags[][2] = {{"role_tag", "role"},
                                          {"content_tag", "content"},
                                          {"user_tag", "user"},
                                          {"assistant_tag", "assistant"},
                                          {"system_tag", "system"}};
    const json_t *formatting = json_object_get(entry, "formatting");

    if (!json_is_object(entry))
        HY3_FAIL(HY3_EFORMAT, "dataset '%s': its entry must be an object", name);
    if (!json_is_string(formatting) || strcmp(json_string_value(formatting), "openai") != 0)
        HY3_TRY(check_value(entry, "formatting", "sharegpt", name));
    if (json_is_true(json_object_get(entry, "ranking")))
        HY3_FAIL(HY3_EUSAGE, "dataset '%s' is for ranking, not for fine-tuning", name);
    if (json_is_integer(json_object_get(entry, "num_samples")))
        HY3_FAIL(HY3_EUSAGE,
                 "dataset '%s': \"num_samples\" is not read; remove it and set max_samples", name);
    if (!json_is_string(json_object_get(entry, "file_name")))
        HY3_FAIL(HY3_EUSAGE,
                 "dataset '%s' names no local file; download it and set its \"file_name\"", name);
    HY3_TRY(check_columns(entry, name));
    for (size_t i = 0; i < sizeof tags / sizeof *tags; i++)
        HY3_TRY(check_value(json_object_get(entry, "tags"), tags[i][0], tags[i][1], name));
    return HY3_OK;
}

/* A JSON array is one value over many lines, which cannot be divided among ranks by bytes. */
static hy3_status refuse_array(const char *path)
{
    hy3_status status = HY3_OK;
    char head[512];
    ssize_t size, i = 0;
    int fd = -1;

    HY3_TRY_DONE(hy3_file_open(path, &fd));
    if ((size = pread(fd, head, sizeof head, 0)) < 0)
        HY3_FAIL_DONE(HY3_EIO, "cannot read '%s': %s", path, strerror(errno));
    if (size >= 3 && memcmp(head, "\xef\xbb\xbf", 3) == 0)
        i = 3;
    while (i < size && isspace((unsigned char)head[i]))
        i++;
    if (i < size && head[i] == '[')
        HY3_FAIL_DONE(HY3_EUSAGE,
                      "'%s' is one JSON array; convert it to one conversation per line: "
                      "jq -c '.[]' OLD.json > NEW.jsonl",
                      path);
done:
    if (fd >= 0)
        close(fd);
    return status;
}

static hy3_status fail_unknown(const char *where, const char *name, json_t *info)
{
    char known[1024] = "";
    const char *key;
    json_t *value;
    size_t used = 0;

    json_object_foreach(info, key, value)
    {
        int size = snprintf(known + used, sizeof known - used, "%s%s", used > 0 ? ", " : "", key);

        if (size < 0 || (size_t)size >= sizeof known - used)
            break;
        used += (size_t)size;
    }
    known[used] = '\0';
    HY3_FAIL(HY3_EUSAGE, "there is no dataset '%s' in '%s'; it has: %s", name, where, known);
}

hy3_status hy3_dataset_info_resolve(const char *directory, char *const *names, int count,
                                    char ***files, int *file_count)
{
    hy3_status status = HY3_OK;
    char where[HY3_PATH_MAX], path[HY3_PATH_MAX], **found = NULL;
    json_t *info = NULL;

    *files = NULL;
    *file_count = 0;
    if (!directory || count < 1)
        HY3_FAIL_DONE(HY3_EUSAGE,
                      "no data is named; set train_data_file, or dataset_dir and dataset");
    HY3_TRY_DONE(hy3_path_format(where, sizeof where, "%s/dataset_info.json", directory));
    HY3_TRY_DONE(hy3_json_read(where, 16 << 20, &info));
    HY3_TRY_DONE(hy3_alloc(&found, (size_t)count, sizeof *found));
    for (int i = 0; i < count; i++) {
        const json_t *entry = json_object_get(info, names[i]);
        const char *file;

        if (!entry)
            HY3_TRY_DONE(fail_unknown(where, names[i], info));
        HY3_TRY_DONE(check_entry(entry, names[i]));
        file = json_string_value(json_object_get(entry, "file_name"));
        if (file[0] == '/')
            HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s", file));
        else
            HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/%s", directory, file));
        HY3_TRY_DONE(refuse_array(path));
        HY3_TRY_DONE(hy3_strdup(path, &found[i]));
    }
    *files = found;
    *file_count = count;
    found = NULL;
done:
    hy3_dataset_info_free(found, count);
    json_decref(info);
    return status;
}
