/* SPDX-License-Identifier: Apache-2.0 */
/* companions.c - names that belong to a model, by equality, beginning or end. */
#include "ckpt/hf/companions.h"

#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/output.h"
#include "base/printable.h"
#include "ckpt/hf/checksums.h"
#include "ckpt/hf/safetensors.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>

enum { JSON_LIMIT = 16 << 20, CODE_LIMIT = 4 << 20, LISTED = 8, MODULE_NAME = 256 };

const char *const hy3_hf_tokenizer_files[] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "hy.tiktoken",
    NULL,
};

static const char *const begins[] = {"chat_template.", "license",    "licence", "notice",
                                     "copying",        "model_card", "readme"};

bool hy3_hf_is_tokenizer_file(const char *name)
{
    for (size_t i = 0; hy3_hf_tokenizer_files[i]; i++)
        if (strcmp(name, hy3_hf_tokenizer_files[i]) == 0)
            return true;
    return false;
}

bool hy3_hf_is_companion(const char *name)
{
    if (strcmp(name, "config.json") == 0 || strcmp(name, "generation_config.json") == 0 ||
        hy3_hf_is_tokenizer_file(name))
        return true;
    for (size_t i = 0; i < sizeof begins / sizeof *begins; i++)
        if (strncasecmp(name, begins[i], strlen(begins[i])) == 0)
            return true;
    return name[0] != '.' && hy3_ends_with(name, ".tiktoken");
}

/* The modules (without ".py") that a model's own classes need, as the keys of an object. */
static hy3_status add_module(json_t *modules, const char *name, size_t length)
{
    char module[MODULE_NAME];

    if (length == 0 || length >= sizeof module || memchr(name, '/', length))
        return HY3_OK;
    snprintf(module, sizeof module, "%.*s", (int)length, name);
    if (!json_object_get(modules, module) &&
        json_object_set_new(modules, module, json_false()) != 0)
        HY3_FAIL(HY3_ENOMEM, "no memory for the names of modules");
    return HY3_OK;
}

/* "module.Class", "repository--module.Class", or a list of such. */
static hy3_status add_classes(json_t *modules, const json_t *value)
{
    const char *text = json_string_value(value), *local;
    const json_t *item;
    size_t i;

    if (text) {
        local = strstr(text, "--");
        text = local ? local + 2 : text;
        return add_module(modules, text, strcspn(text, "."));
    }
    json_array_foreach(value, i, item)
    {
        HY3_TRY(add_classes(modules, item));
    }
    return HY3_OK;
}

/* Adds what auto_map of a JSON file names. A file that cannot be read names nothing here: whoever
 * needs it says so. */
static hy3_status add_auto_map(json_t *modules, const char *base, const char *file)
{
    hy3_status status = HY3_OK;
    char path[HY3_PATH_MAX];
    json_t *document = NULL, *value;
    const char *key;

    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/%s", base, file));
    if (!hy3_path_exists(path) || hy3_json_read(path, JSON_LIMIT, &document) != HY3_OK)
        goto done;
    json_object_foreach(json_object_get(document, "auto_map"), key, value)
    {
        HY3_TRY_DONE(add_classes(modules, value));
    }
done:
    json_decref(document);
    return status;
}

/* Adds the modules beside it that a module imports: "from .NAME import". */
static hy3_status add_imports(json_t *modules, const char *base, const char *module)
{
    static const char from[] = "from .";
    hy3_status status = HY3_OK;
    char path[HY3_PATH_MAX], *text = NULL;
    size_t size;

    HY3_TRY_DONE(hy3_path_format(path, sizeof path, "%s/%s.py", base, module));
    if (!hy3_path_exists(path))
        goto done;
    HY3_TRY_DONE(hy3_file_read(path, CODE_LIMIT, &text, &size));
    for (const char *at = text; (at = strstr(at, from));) {
        at += sizeof from - 1;
        HY3_TRY_DONE(add_module(modules, at, strcspn(at, " .\t\r\n")));
    }
done:
    hy3_free(text);
    return status;
}

static hy3_status list_modules(const char *base, json_t *modules)
{
    const char *name;
    json_t *looked;

    HY3_TRY(add_auto_map(modules, base, "config.json"));
    HY3_TRY(add_auto_map(modules, base, "tokenizer_config.json"));
    for (bool more = true; more;) {
        more = false;
        json_object_foreach(modules, name, looked)
        {
            if (json_is_true(looked))
                continue;
            json_object_set_new(modules, name, json_true());
            HY3_TRY(add_imports(modules, base, name));
            more = true;
            break; /* the object has changed */
        }
    }
    return HY3_OK;
}

static bool is_module(const json_t *modules, const char *name)
{
    char module[MODULE_NAME];
    size_t length = strlen(name);

    if (!hy3_ends_with(name, ".py") || length - 3 >= sizeof module)
        return false;
    snprintf(module, sizeof module, "%.*s", (int)(length - 3), name);
    return json_object_get(modules, module) != NULL;
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* One line with the first names in alphabetical order. */
static void tell_left_out(const char *output, char **names, size_t count)
{
    char text[LISTED * MODULE_NAME] = "";
    size_t used = 0;

    if (count == 0)
        return;
    qsort(names, count, sizeof *names, compare_names);
    for (size_t i = 0; i < count && i < LISTED; i++) {
        snprintf(text + used, sizeof text - used, "%s%.200s", i > 0 ? ", " : "", names[i]);
        used = strlen(text);
    }
    if (count > LISTED)
        snprintf(text + used, sizeof text - used, " and %zu more", count - LISTED);
    hy3_make_printable(text, false);
    hy3_log(HY3_LOG_INFO, "not copied to '%s', being no part of a model: %s", output, text);
}

/* Whether there is a file to copy: what cannot be told is found out by copying. */
static bool is_file(const char *path)
{
    struct stat info;

    return stat(path, &info) == 0 ? S_ISREG(info.st_mode) : hy3_path_exists(path);
}

/* The directory of the blobs where `base` is a snapshot in a cache of the hub,
 * models--ORG--NAME/snapshots/REVISION, whose files are links into models--ORG--NAME/blobs. */
static bool find_blobs(const char *base, char out[HY3_PATH_MAX])
{
    const char *revision = hy3_path_name(base), *end = revision - sizeof "/snapshots";

    if (end < base || strncmp(end, "/snapshots/", sizeof "/snapshots") != 0)
        return false;
    return hy3_path_format(out, HY3_PATH_MAX, "%.*s/blobs", (int)(end - base), base) == HY3_OK;
}

static bool is_below(const char *path, const char *directory)
{
    size_t length = strlen(directory);

    return strncmp(path, directory, length) == 0 && path[length] == '/';
}

/* Whether the file lies, under its own name, where the link of tokenizer.json or config.json leads:
 * a directory of links to a model elsewhere. What they lead to is read as what it should be. */
static bool is_linked_model(const char *base, const char *name, const char *real)
{
    static const char *const read[] = {"tokenizer.json", "config.json"};
    const char *own = hy3_path_name(real);
    bool found = false;

    for (size_t i = 0; i < sizeof read / sizeof *read && strcmp(own, name) == 0; i++) {
        char path[HY3_PATH_MAX], there[PATH_MAX];
        size_t length = (size_t)(own - real);

        if (hy3_path_format(path, sizeof path, "%s/%s", base, read[i]) == HY3_OK &&
            realpath(path, there))
            found |= strncmp(there, real, length) == 0 && strcmp(there + length, read[i]) == 0;
    }
    return found;
}

/* Where the content of a companion lies: links are followed within the model's directory, into the
 * blobs of its cache, and as is_linked_model has it. One that leads elsewhere would put somebody's
 * file into what is published: *out is "", or the error of a file that a model cannot do without.
 * Also "" where there is no file. */
static hy3_status find_source(const char *base, const char *name, char out[HY3_PATH_MAX])
{
    char path[HY3_PATH_MAX], top[PATH_MAX], real[PATH_MAX], blobs[HY3_PATH_MAX];

    *out = '\0';
    HY3_TRY(hy3_path_format(path, sizeof path, "%s/%s", base, name));
    if (!is_file(path))
        return HY3_OK;
    if (!realpath(base, top) || !realpath(path, real))
        HY3_FAIL(HY3_EIO, "cannot look at '%s': %s", path, strerror(errno));
    if (is_below(real, top) || (find_blobs(top, blobs) && is_below(real, blobs)) ||
        is_linked_model(base, name, real))
        return hy3_path_format(out, HY3_PATH_MAX, "%s", real);
    if (strcmp(name, "config.json") == 0 || hy3_hf_is_tokenizer_file(name))
        HY3_FAIL(HY3_EFORMAT,
                 "'%s' is a link to '%s', outside the directory of its model, and would be copied "
                 "into the output; if that is meant, put the file in place of the link",
                 path, real);
    hy3_log(HY3_LOG_WARN,
            "'%s' is not copied: it is a link to '%s', outside the directory of its model", path,
            real);
    return HY3_OK;
}

hy3_status hy3_hf_check_companions(const char *base, bool with_config)
{
    char source[HY3_PATH_MAX];

    if (with_config)
        HY3_TRY(find_source(base, "config.json", source));
    for (size_t i = 0; hy3_hf_tokenizer_files[i]; i++)
        HY3_TRY(find_source(base, hy3_hf_tokenizer_files[i], source));
    return HY3_OK;
}

hy3_status hy3_hf_copy_companion(const char *base, const char *output, const char *name,
                                 json_t *files, bool *copied)
{
    char from[HY3_PATH_MAX];

    HY3_TRY(find_source(base, name, from));
    *copied = *from != '\0';
    return *copied ? hy3_checksums_copy(files, from, output, name) : HY3_OK;
}

/* Copies the file if it is a model's; *copied: so, or it is written otherwise. */
static hy3_status copy_one(const char *base, const char *output, const json_t *modules,
                           const char *name, json_t *files, bool *copied)
{
    bool wanted = hy3_hf_is_companion(name) || is_module(modules, name);

    *copied = strcmp(name, HY3_CHECKSUMS) == 0 ||
              (strncmp(name, "model", 5) == 0 && (hy3_ends_with(name, ".safetensors") ||
                                                  hy3_ends_with(name, ".safetensors.index.json")));
    return *copied || !wanted ? HY3_OK : hy3_hf_copy_companion(base, output, name, files, copied);
}

hy3_status hy3_hf_copy_companions(const char *base, const char *output, json_t *files)
{
    hy3_status status = HY3_OK;
    json_t *modules = json_object();
    char **left = NULL;
    size_t count = 0, capacity = 0;
    const struct dirent *entry;
    DIR *directory = opendir(base);

    if (!directory)
        HY3_FAIL_DONE(HY3_EIO, "cannot open the directory '%s': %s", base, strerror(errno));
    HY3_TRY_DONE(list_modules(base, modules));
    while ((entry = readdir(directory))) {
        const char *name = entry->d_name;
        bool copied;

        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
            continue;
        HY3_TRY_DONE(copy_one(base, output, modules, name, files, &copied));
        if (copied)
            continue;
        /* NOLINTNEXTLINE(bugprone-sizeof-expression): an array of pointers */
        HY3_TRY_DONE(hy3_grow(&left, &capacity, count + 1, sizeof *left));
        HY3_TRY_DONE(hy3_strdup(name, &left[count]));
        count++;
    }
    tell_left_out(output, left, count);
done:
    if (directory)
        closedir(directory);
    for (size_t i = 0; i < count; i++)
        hy3_free(left[i]);
    hy3_free(left);
    json_decref(modules);
    return status;
}

hy3_status hy3_hf_copy_modules(const char *base, const char *output, json_t *files)
{
    hy3_status status = HY3_OK;
    json_t *modules = json_object();
    char file[MODULE_NAME + 4];
    const char *name;
    json_t *value;
    bool copied;

    HY3_TRY_DONE(list_modules(base, modules));
    json_object_foreach(modules, name, value)
    {
        HY3_TRY_DONE(hy3_path_format(file, sizeof file, "%s.py", name));
        HY3_TRY_DONE(hy3_hf_copy_companion(base, output, file, files, &copied));
    }
done:
    json_decref(modules);
    return status;
}
