/* SPDX-License-Identifier: Apache-2.0 */
/* load.c - file and overrides to a configuration.
 *
 * Each reader turns what is written into settings, and the settings enter the option table here:
 * libconfig text (libconfig.c), key=value (arguments.c). What other tools have (foreign/) rank 0
 * reads alone, since it names other files; the others get its result as a file of ours. */
#include "config/load.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "config/assign.h"
#include "config/check.h"
#include "config/foreign/translate.h"
#include "config/foreign/yaml.h"
#include "config/version.h"

enum { FILE_LIMIT = 1 << 20 };

/* Collective. Whether the argument CONFIG names a file that can be read, and of which kind. */
static hy3_status check_path(MPI_Comm comm, const char *path, const char *program)
{
    hy3_status status = HY3_OK;
    char why[HY3_PATH_WHY];

    if (!path)
        HY3_FAIL(HY3_EUSAGE, "no configuration file; usage: %s CONFIG [key=value ...], see --help",
                 program);
    if (*path == '\0')
        HY3_FAIL(HY3_EUSAGE, "CONFIG is empty; usage: %s CONFIG [key=value ...], see --help",
                 program);
    if (hy3_rank(comm) == 0 && hy3_path_fault(path, HY3_PATH_FILE, why, sizeof why))
        status = hy3_fail(HY3_EUSAGE, __FILE__, __LINE__, "CONFIG: '%.300s' %s", path, why);
    return hy3_agree(comm, status, "opening the configuration");
}

/* Collective. The text of rank 0 on every rank; the caller owns *text. */
static hy3_status share_text(MPI_Comm comm, char **text, size_t *size)
{
    hy3_status status = HY3_OK;
    int64_t bytes = (int64_t)*size;

    hy3_broadcast(comm, 0, &bytes, sizeof bytes, "sharing the configuration");
    *size = (size_t)bytes;
    if (hy3_rank(comm) != 0)
        status = hy3_alloc(text, *size + 1, 1);
    HY3_AGREE(comm, status, "sharing the configuration");
    hy3_broadcast(comm, 0, *text, *size, "sharing the configuration");
    return status;
}

/* Collective. The bytes of the file on every rank, read by rank 0; the caller owns *text. */
static hy3_status read_file(MPI_Comm comm, const char *path, char **text, size_t *size)
{
    hy3_status status = HY3_OK;

    if (hy3_rank(comm) == 0)
        status = hy3_file_read(path, FILE_LIMIT, text, size);
    if (status == HY3_EFORMAT) /* too large: no configuration */
        status = HY3_EUSAGE;
    HY3_AGREE(comm, status, "reading the configuration");
    return share_text(comm, text, size);
}

static void refuse_unknown(const struct hy3_setting *s, struct hy3_problems *problems)
{
    const char *nearest = hy3_option_nearest(hy3_options, s->key);

    if (nearest)
        hy3_problem(problems, s->where, "unknown key '%.64s'; did you mean '%s'?", s->key, nearest);
    else
        hy3_problem(problems, s->where, "unknown key '%.64s'; see --help", s->key);
}

static bool is_of(const struct hy3_settings *settings, const struct hy3_setting *s)
{
    for (size_t i = 0; i < settings->count; i++)
        if (s == &settings->items[i])
            return true;
    return false;
}

/* Puts the settings into the configuration. given: who gave each option its value, so far. A file
 * may name a key once, by whichever name; of arguments the last counts, with a warning. */
static hy3_status assign(const struct hy3_settings *settings, bool once, struct hy3_config *config,
                         const struct hy3_setting **given, struct hy3_problems *problems)
{
    for (size_t i = 0; i < settings->count; i++) {
        const struct hy3_setting *s = &settings->items[i];
        const struct hy3_option *o = hy3_option_find(hy3_options, s->key);
        const struct hy3_setting **giver;

        if (!o) {
            refuse_unknown(s, problems);
            continue;
        }
        giver = &given[hy3_option_index(o)];
        if (once && *giver)
            hy3_problem(problems, s->where, "'%s' and '%s' (%s) are the same key; keep one", s->key,
                        (*giver)->key, (*giver)->where);
        else if (is_of(settings, *giver) && strcmp((*giver)->where, s->where) != 0)
            hy3_log(HY3_LOG_WARN, "%s is given twice: %s and %s; the last counts", o->key,
                    (*giver)->where, s->where);
        *giver = s;
        HY3_TRY(hy3_option_assign(o, s, config, problems));
    }
    return HY3_OK;
}

/* Local, with the same outcome on every rank unless memory runs out. file: the text of `path`. */
static hy3_status resolve(struct hy3_config *config, const struct hy3_settings *file,
                          const struct hy3_settings *overrides, const char *program,
                          struct hy3_problems *problems)
{
    hy3_status status = HY3_OK;
    const struct hy3_setting **given = NULL;

    HY3_TRY_DONE(hy3_config_defaults(config));
    HY3_TRY_DONE(hy3_alloc(&given, (size_t)hy3_option_count(), sizeof(void *)));
    HY3_TRY_DONE(assign(file, true, config, given, problems));
    HY3_TRY_DONE(assign(overrides, false, config, given, problems));
    if (file->count > 0 || problems->count == 0) /* a file that is no libconfig lacks everything */
        HY3_TRY_DONE(hy3_config_check(config, given, program, problems));
    HY3_TRY_DONE(hy3_problems_status(problems));
done:
    hy3_free(given);
    return status;
}

/* Local. A libconfig file. */
static hy3_status load_native(struct hy3_config *config, const char *text, size_t size,
                              const struct hy3_config_source *source, struct hy3_problems *problems)
{
    hy3_status status = HY3_OK;
    struct hy3_settings file = {0};

    HY3_TRY_DONE(hy3_libconfig_read(text, size, source->path, &file, problems));
    status = resolve(config, &file, source->overrides, source->program, problems);
done:
    hy3_settings_free(&file);
    return status;
}

static bool is_json(const char *path)
{
    return hy3_ends_with(path, ".json");
}

/* A text that cannot be read lacks everything, which is not worth telling. */
static hy3_status read_foreign(const char *text, size_t size, const char *path,
                               struct hy3_settings *given, struct hy3_problems *problems)
{
    int before = problems->count;

    if (is_json(path))
        HY3_TRY(hy3_json_settings(text, size, path, "", given, problems));
    else
        HY3_TRY(hy3_yaml_read(text, size, path, given, problems));
    return given->count == 0 && problems->count > before ? hy3_problems_status(problems) : HY3_OK;
}

/* Local, on one rank. A file or flags of another tool. */
static hy3_status load_foreign(struct hy3_config *config, const char *text, size_t size,
                               const struct hy3_config_source *source, int ranks,
                               struct hy3_problems *problems)
{
    static const struct hy3_settings none;

    hy3_status status = HY3_OK;
    enum hy3_origin origin = source->origin;
    struct hy3_settings given = {0}, ours = {0};
    struct hy3_list notes = {0};

    if (source->flags) {
        HY3_TRY_DONE(hy3_foreign_take_flags(&given, source->flags));
    } else {
        HY3_TRY_DONE(read_foreign(text, size, source->path, &given, problems));
        origin = hy3_origin_of(&given);
    }
    HY3_TRY_DONE(hy3_foreign_override(origin, &given, source->overrides, problems));
    if (source->path && !is_json(source->path))
        HY3_TRY_DONE(hy3_interpolate(&given, problems));
    hy3_foreign_settle_nulls(origin, &given);
    HY3_TRY_DONE(
        hy3_foreign_translate(origin, source->path, &given, &ours, ranks, &notes, problems));
    HY3_TRY_DONE(resolve(config, &ours, &none, source->program, problems));
    for (int i = 0; i < notes.count; i++)
        hy3_log(HY3_LOG_INFO, "%s", notes.items[i]);
done:
    hy3_settings_free(&given);
    hy3_settings_free(&ours);
    hy3_list_free(&notes);
    return status;
}

/* Collective. The configuration of rank 0 on every rank, as its own file would give it. */
static hy3_status share(MPI_Comm comm, struct hy3_config *config, const char *program)
{
    hy3_status status = HY3_OK;
    const struct hy3_config_source source = {
        .path = "config.cfg", .program = program, .overrides = &(struct hy3_settings){0}};
    struct hy3_problems problems = {0};
    char *text = NULL;
    size_t size = 0;

    if (hy3_rank(comm) == 0 && (status = hy3_config_format(config, &text)) == HY3_OK)
        size = strlen(text);
    HY3_AGREE_DONE(comm, status, "sharing the configuration");
    HY3_TRY_DONE(share_text(comm, &text, &size));
    if (hy3_rank(comm) != 0)
        status = load_native(config, text, size, &source, &problems);
    HY3_AGREE_DONE(comm, status, "sharing the configuration");
done:
    hy3_free(text);
    return status;
}

hy3_status hy3_config_load(struct hy3_config *config, MPI_Comm comm,
                           const struct hy3_config_source *source, struct hy3_problems *problems)
{
    hy3_status status = HY3_OK;
    const char *path = source->path;
    bool is_foreign =
        source->flags ||
        (path && (hy3_ends_with(path, ".yaml") || hy3_ends_with(path, ".yml") || is_json(path)));
    char *text = NULL;
    size_t size = 0;

    if (!source->flags) {
        HY3_TRY_DONE(check_path(comm, path, source->program));
        HY3_TRY_DONE(read_file(comm, path, &text, &size));
    }
    if (!is_foreign)
        status = load_native(config, text, size, source, problems);
    else if (hy3_rank(comm) == 0)
        status =
            load_foreign(config, text, size, source,
                         strcmp(source->program, "hy3_sft") == 0 ? hy3_size(comm) : 0, problems);
    HY3_AGREE_DONE(comm, status, "reading the configuration");
    if (is_foreign)
        status = share(comm, config, source->program);
done:
    if (status != HY3_OK)
        hy3_config_free(config);
    hy3_free(text);
    return status;
}
