/* SPDX-License-Identifier: Apache-2.0 */
/* dataset_info.c - names to files; an entry that hy3 would read wrongly is refused. */
#include "data/dataset_info.h"

#include "base/expand.h"
#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/path.h"

#include <strings.h>

struct entry { /* of dataset_info.json */
    const char *name;
    const json_t *object;
};

/* The text of a key: NULL where it is absent or null. */
static hy3_status get_text(const struct entry *e, const json_t *object, const char *key,
                           const char **out)
{
    const json_t *value = json_object_get(object, key);

    *out = NULL;
    if (!value || json_is_null(value))
        return HY3_OK;
    if (!json_is_string(value) || json_string_length(value) >= HY3_FORM_NAME ||
        strlen(json_string_value(value)) != json_string_length(value))
        HY3_FAIL(HY3_EUSAGE, "dataset '%s': \"%s\" must be a text of less than %d bytes", e->name,
                 key, HY3_FORM_NAME);
    *out = json_string_value(value);
    return HY3_OK;
}

struct name { /* of a column or a tag */
    const char *key;
    size_t offset;       /* in the form */
    const char *initial; /* where the file has no "columns", or no "tags" */
};

#define NAME(key_, field, initial_)                      \
    {                                                    \
        key_, offsetof(struct hy3_form, field), initial_ \
    }

/* LLaMA-Factory's parser.py: an object that is given names them all. */
static hy3_status read_names(const struct entry *e, const char *which, const struct name *names,
                             size_t count, struct hy3_form *form)
{
    const json_t *object = json_object_get(e->object, which);
    const char *key;
    json_t *value;

    if (object && !json_is_object(object))
        HY3_FAIL(HY3_EUSAGE, "dataset '%s': \"%s\" must be an object", e->name, which);
    for (size_t i = 0; i < count; i++) {
        const char *text = names[i].initial;

        if (object)
            HY3_TRY(get_text(e, object, names[i].key, &text));
        snprintf((char *)form + names[i].offset, HY3_FORM_NAME, "%s", text ? text : "");
    }
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        bool is_known = json_is_null(value);

        for (size_t i = 0; i < count; i++)
            is_known |= strcmp(key, names[i].key) == 0;
        if (!is_known)
            HY3_FAIL(HY3_EUSAGE, "dataset '%s': \"%s\" in \"%s\" is not read: it is for %s",
                     e->name, key, which, "images, sound, ranking or another kind of training");
    }
    return HY3_OK;
}

static hy3_status read_form(const struct entry *e, struct hy3_form *form)
{
    static const struct name columns[] = {NAME("prompt", prompt, "instruction"),
                                          NAME("query", query, "input"),
                                          NAME("response", response, "output"),
                                          NAME("history", history, ""),
                                          NAME("system", system, ""),
                                          NAME("tools", tools, ""),
                                          NAME("messages", messages, "conversations")};
    static const struct name tags[] = {NAME("role_tag", role_tag, "from"),
                                       NAME("content_tag", content_tag, "value"),
                                       NAME("user_tag", user_tag, "human"),
                                       NAME("assistant_tag", assistant_tag, "gpt"),
                                       NAME("observation_tag", observation_tag, "observation"),
                                       NAME("function_tag", function_tag, "function_call"),
                                       NAME("system_tag", system_tag, "system")};
    const char *formatting;

    *form = (struct hy3_form){.splits_think = true};
    HY3_TRY(get_text(e, e->object, "formatting", &formatting));
    HY3_TRY(read_names(e, "columns", columns, sizeof columns / sizeof *columns, form));
    if (!formatting || strcmp(formatting, "alpaca") == 0) {
        form->kind = HY3_FORM_ALPACA;
        return HY3_OK;
    }
    if (strcmp(formatting, "sharegpt") != 0 && strcmp(formatting, "openai") != 0)
        HY3_FAIL(HY3_EUSAGE, "dataset '%s': formatting \"%s\" is none of alpaca, sharegpt, openai",
                 e->name, formatting);
    HY3_TRY(read_names(e, "tags", tags, sizeof tags / sizeof *tags, form));
    form->kind = *formatting == 's' ? HY3_FORM_SHAREGPT : HY3_FORM_MESSAGES;
    if (strcmp(form->role_tag, "role") != 0 || strcmp(form->content_tag, "content") != 0 ||
        strcmp(form->user_tag, "user") != 0 || strcmp(form->assistant_tag, "assistant") != 0) {
        if (!*form->role_tag || !*form->content_tag || !*form->user_tag || !*form->assistant_tag)
            HY3_FAIL(HY3_EUSAGE,
                     "dataset '%s': \"tags\" must name role_tag, content_tag, user_tag and "
                     "assistant_tag",
                     e->name);
        return HY3_OK;
    }
    if ((*form->observation_tag && strcmp(form->observation_tag, "tool") != 0) ||
        *form->function_tag || (*form->system_tag && strcmp(form->system_tag, "system") != 0))
        return HY3_OK;
    form->kind = HY3_FORM_MESSAGES; /* our own names: the lines are read as they are */
    form->role_tag[0] = '\0';
    return HY3_OK;
}

/* Keys that are not read are told; one that looks like another is refused. */
static hy3_status check_entry_keys(const struct entry *e)
{
    static const char *const known[] = {"file_name",  "formatting",     "columns",    "tags",
                                        "ranking",    "num_samples",    "subset",     "split",
                                        "folder",     "hf_hub_url",     "ms_hub_url", "om_hub_url",
                                        "script_url", "cloud_file_name"};
    static const char *const needed[] = {"file_name", "formatting", "columns", "tags"};
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)(uintptr_t)e->object, key, value)
    {
        bool is_known = json_is_null(value);

        for (size_t i = 0; i < sizeof known / sizeof *known; i++)
            is_known |= strcmp(key, known[i]) == 0;
        for (size_t i = 0; i < sizeof needed / sizeof *needed && !is_known; i++)
            if (strncasecmp(key, needed[i], 4) == 0 && !json_object_get(e->object, needed[i]))
                HY3_FAIL(HY3_EUSAGE, "dataset '%s': unknown key \"%.64s\"; did you mean \"%s\"?",
                         e->name, key, needed[i]);
        if (!is_known)
            hy3_log(HY3_LOG_INFO, "dataset '%s': its key \"%.64s\" is not read", e->name, key);
    }
    return HY3_OK;
}

/* Whether the value says no: absent, null, false or 0. */
static bool is_off(const json_t *value)
{
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_number(value) && json_number_value(value) == 0);
}

static hy3_status check_entry(const struct entry *e)
{
    static const char *const hubs[] = {"hf_hub_url", "ms_hub_url", "om_hub_url", "script_url",
                                       "cloud_file_name"};
    bool has_file;

    if (!json_is_object(e->object))
        HY3_FAIL(HY3_EFORMAT, "dataset '%s': its entry must be an object", e->name);
    HY3_TRY(check_entry_keys(e));
    if (!is_off(json_object_get(e->object, "ranking")))
        HY3_FAIL(HY3_EUSAGE, "dataset '%s' is for ranking, not for fine-tuning", e->name);
    if (!is_off(json_object_get(e->object, "num_samples")))
        HY3_FAIL(HY3_EUSAGE,
                 "dataset '%s': \"num_samples\" is not read; remove it and set max_samples",
                 e->name);
    has_file = json_is_string(json_object_get(e->object, "file_name"));
    for (size_t i = 0; i < sizeof hubs / sizeof *hubs; i++) {
        const char *id = json_string_value(json_object_get(e->object, hubs[i]));

        if (id && has_file)
            hy3_log(HY3_LOG_INFO, "dataset '%s': its \"file_name\" is read, not '%.200s' (%s)",
                    e->name, id, hubs[i]);
        else if (id)
            HY3_FAIL(HY3_EUSAGE,
                     "dataset '%s' is '%.200s' (%s); hy3 does not download: run 'hf download "
                     "--repo-type dataset %.200s --local-dir DIRECTORY' and set its \"file_name\"",
                     e->name, id, hubs[i], id);
    }
    if (has_file)
        return HY3_OK;
    HY3_FAIL(HY3_EUSAGE, "dataset '%s' names no local file; download it and set its \"file_name\"",
             e->name);
}

static hy3_status add_entry(struct hy3_named_data *data, const char *directory,
                            const struct entry *e, int set)
{
    char path[HY3_PATH_MAX], why[HY3_PATH_WHY];
    struct hy3_form form;
    enum hy3_path_use use;
    hy3_status status;
    const char *file;

    HY3_TRY(check_entry(e));
    HY3_TRY(read_form(e, &form));
    file = json_string_value(json_object_get(e->object, "file_name"));
    if (file[0] == '/')
        HY3_TRY(hy3_path_format(path, sizeof path, "%s", file));
    else
        HY3_TRY(hy3_path_format(path, sizeof path, "%s/%s", directory, file));
    use = hy3_path_is_directory(path) ? HY3_PATH_INPUT : HY3_PATH_FILE;
    if (!hy3_path_is_pattern(path) && hy3_path_fault(path, use, why, sizeof why))
        HY3_FAIL(HY3_EUSAGE, "dataset '%s' of '%s/dataset_info.json': its file '%.300s' %s",
                 e->name, directory, path, why);
    status = hy3_named_data_add(data, path, &form, set, 0);
    if (status == HY3_OK || status == HY3_ENOMEM)
        return status;
    snprintf(why, sizeof why, "%s", hy3_error_text());
    HY3_FAIL(status, "dataset '%s' of '%s/dataset_info.json': %s", e->name, directory, why);
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
                                    struct hy3_named_data *out)
{
    hy3_status status = HY3_OK;
    char where[HY3_PATH_MAX];
    json_t *info = NULL;

    *out = (struct hy3_named_data){0};
    if (!directory || count < 1)
        HY3_FAIL_DONE(HY3_EUSAGE,
                      "no data is named; set train_data_file, or dataset_dir and dataset");
    HY3_TRY_DONE(hy3_path_format(where, sizeof where, "%s/dataset_info.json", directory));
    HY3_TRY_DONE(hy3_json_read(where, 16 << 20, &info));
    for (int i = 0; i < count; i++) {
        const struct entry e = {names[i], json_object_get(info, names[i])};

        if (!e.object)
            HY3_TRY_DONE(fail_unknown(where, names[i], info));
        HY3_TRY_DONE(add_entry(out, directory, &e, i));
    }
done:
    if (status != HY3_OK)
        hy3_named_data_free(out);
    json_decref(info);
    return status;
}
