/* SPDX-License-Identifier: Apache-2.0 */
/* paths.c - the paths of arguments and of keys, looked at before any work. */
#include "config/paths.h"

#include "base/expand.h"
#include "base/file.h"
#include "comm/agree.h"
#include "comm/comm.h"

#include <ctype.h>

/* "ORG/NAME" of the Hugging Face hub, maybe behind its address; NULL: the text cannot be one. */
static const char *hub_id(const char *text)
{
    static const char *const addresses[] = {"https://huggingface.co/", "https://hf.co/", "hf://"};
    char owner[128];
    int slashes = 0;

    for (size_t i = 0; i < sizeof addresses / sizeof *addresses; i++)
        if (strncmp(text, addresses[i], strlen(addresses[i])) == 0)
            text += strlen(addresses[i]);
    for (const char *p = text; *p; p++) {
        bool begins = p == text || p[-1] == '/';

        slashes += *p == '/';
        if (!isalnum((unsigned char)*p) && (begins || !strchr("-_./", *p)))
            return NULL;
    }
    if (slashes != 1 || text[strlen(text) - 1] == '/')
        return NULL;
    snprintf(owner, sizeof owner, "%.*s", (int)strcspn(text, "/"), text);
    return hy3_path_is_directory(owner) ? NULL : text; /* more likely a name in it is misspelt */
}

/* A hint where the path has what only a shell replaces, and only where it stands bare. */
static const char *unexpanded(const char *path)
{
    if (path[0] == '~')
        return "; '~' is not expanded here: write the whole path";
    if (path[0] == '$' || strstr(path, "${"))
        return "; variables are not expanded here: write the whole path";
    return "";
}

/* name: of the key or argument. */
static void check(const char *name, const char *path, enum hy3_path_use use,
                  struct hy3_problems *problems)
{
    char why[HY3_PATH_WHY];
    const char *hub = use == HY3_PATH_MODEL ? hub_id(path) : NULL;

    if (*path == '\0')
        hy3_problem(problems, "", "%s is empty; it must be a path", name);
    else if (use == HY3_PATH_OUTPUT && (*path == '~' || strstr(path, "${") || *path == '$') &&
             !hy3_path_exists(path))
        hy3_problem(problems, "", "%s: '%.300s'%s", name, path, unexpanded(path));
    else if (!hy3_path_fault(path, use, why, sizeof why))
        return;
    else if (hub && !hy3_path_exists(path))
        hy3_problem(problems, "",
                    "%s: '%.200s' does not exist; hy3 does not download: if it is a model of the "
                    "Hugging Face hub, run 'hf download %.200s --local-dir models/%.200s' and give "
                    "that directory",
                    name, path, hub, hy3_path_name(hub));
    else
        hy3_problem(problems, "", "%s: '%.300s' %s%s", name, path, why,
                    hy3_path_exists(path) ? "" : unexpanded(path));
}

void hy3_paths_of_arguments(const struct hy3_option *arguments, struct hy3_problems *problems)
{
    for (const struct hy3_option *o = arguments; o->key; o++) {
        char name[64];
        const char *path;

        if (o->path == HY3_PATH_UNCHECKED)
            continue;
        memcpy(&path, o->target, sizeof path);
        snprintf(name, sizeof name, "%s%s", o->type == HY3_WORD ? "" : "--", o->key);
        if (path)
            check(name, path, o->path, problems);
    }
}

static void check_key(const char *key, const char *path, enum hy3_path_use use,
                      struct hy3_problems *problems)
{
    if (path)
        check(key, path, use, problems);
}

/* dataset: needs dataset_dir (check.c), and that its file. */
static void check_dataset_dir(const char *directory, struct hy3_problems *problems)
{
    char path[HY3_PATH_MAX], why[HY3_PATH_WHY];

    check_key("dataset_dir", directory, HY3_PATH_INPUT, problems);
    if (hy3_path_is_directory(directory) &&
        hy3_path_format(path, sizeof path, "%s/dataset_info.json", directory) == HY3_OK &&
        hy3_path_fault(path, HY3_PATH_FILE, why, sizeof why))
        hy3_problem(problems, "", "dataset_dir: '%.300s' %s", path, why);
}

/* A file that is not there, which may be a data set of a hub. */
static void check_data_file(const char *key, const char *path, struct hy3_problems *problems)
{
    const char *hub = hub_id(path);

    if (!hub || hy3_path_exists(path) || hy3_ends_with(path, ".json") ||
        hy3_ends_with(path, ".jsonl"))
        check(key, path, HY3_PATH_FILE, problems);
    else
        hy3_problem(problems, "",
                    "%s: '%.200s' does not exist; hy3 does not download: if it is a data set of a "
                    "hub, run 'hf download %.200s --repo-type dataset --local-dir data/%.200s' (or "
                    "'modelscope download --dataset %.200s --local_dir data/%.200s') and name its "
                    "files",
                    key, path, hub, hy3_path_name(hub), hub, hy3_path_name(hub));
}

/* Files, directories and patterns, maybe with "#N" behind them. */
static void check_data(const char *key, const struct hy3_list *list, struct hy3_problems *problems)
{
    for (int i = 0; i < list->count; i++) {
        char path[HY3_PATH_MAX], why[HY3_PATH_WHY];
        struct hy3_paths paths = {0};
        int64_t count;

        if (hy3_path_split_count(list->items[i], path, &count) != HY3_OK ||
            ((hy3_path_is_pattern(path) || hy3_path_is_directory(path)) &&
             hy3_path_expand(path, NULL, &paths) != HY3_OK))
            hy3_problem(problems, "", "%s: %s", key, hy3_error_text());
        else if (paths.count == 0)
            check_data_file(key, path, problems);
        for (int f = 0; f < paths.count; f++)
            if (hy3_path_fault(paths.items[f], HY3_PATH_FILE, why, sizeof why))
                hy3_problem(problems, "", "%s: '%.300s' %s", key, paths.items[f], why);
        hy3_paths_free(&paths);
    }
}

void hy3_paths_of_config(const struct hy3_config *c, const char *program,
                         struct hy3_problems *problems)
{
    bool trains = strcmp(program, "hy3_tokenize") != 0;

    if (trains || !c->tokenizer_name_or_path)
        check_key("model_name_or_path", c->model_name_or_path, HY3_PATH_MODEL, problems);
    check_key("tokenizer_name_or_path", c->tokenizer_name_or_path, HY3_PATH_MODEL, problems);
    if (trains)
        check_key("adapter_name_or_path", c->adapter_name_or_path, HY3_PATH_MODEL, problems);
    if (!c->use_dummy_data) {
        check_data("train_data_file", &c->train_data_file, problems);
        if (c->dataset.count > 0 || c->eval_dataset.count > 0)
            check_dataset_dir(c->dataset_dir, problems);
    }
    check_data("eval_data_file", &c->eval_data_file, problems);
    check_key("output_dir", c->output_dir, HY3_PATH_OUTPUT, problems);
    /* one that is there may be shared, and only read */
    check_key("cache_dir", c->cache_dir,
              c->cache_dir && hy3_path_is_directory(c->cache_dir) ? HY3_PATH_INPUT
                                                                  : HY3_PATH_OUTPUT,
              problems);
    if (trains)
        check_key("offload_dir", c->offload_dir, HY3_PATH_OUTPUT, problems);
}

hy3_status hy3_config_find(MPI_Comm comm, const struct hy3_config *config, const char *program)
{
    struct hy3_problems problems = {0};

    if (hy3_rank(comm) == 0)
        hy3_paths_of_config(config, program, &problems);
    return hy3_agree(comm, hy3_problems_status(&problems), "looking for the files");
}
