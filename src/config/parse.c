/* SPDX-License-Identifier: Apache-2.0 */
/* parse.c - arguments and file to a configuration, on all ranks alike. */
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "config/assign.h"
#include "config/check.h"
#include "config/config.h"
#include "config/help.h"
#include "config/nearest.h"
#include "config/version.h"

#include <ctype.h>

enum { FILE_LIMIT = 1 << 20 };

struct command {        /* what the arguments ask for */
    const char *file;   /* CONFIG, borrowed from argv */
    const char *prints; /* --help, --version, --write-reference=…: borrowed from argv */
    struct hy3_settings overrides;
    struct hy3_problems problems;
};

/* Characters of the key of "key=value", 0 if it is none: a path may hold a '=' too. */
static size_t key_length(const char *argument)
{
    size_t n = 0;

    while (isalnum((unsigned char)argument[n]) || argument[n] == '_')
        n++;
    return argument[n] == '=' ? n : 0;
}

static hy3_status take_override(struct command *c, const char *argument, size_t length)
{
    char key[64], where[160];
    struct hy3_setting *setting;
    const char *value = argument + length + 1;

    snprintf(key, sizeof key, "%.*s", (int)(length < 63 ? length : 63), argument);
    snprintf(where, sizeof where, "argument '%.120s'", argument);
    HY3_TRY(hy3_settings_add(&c->overrides, key, where, &setting));
    return hy3_list_add(&setting->texts, value, strlen(value));
}

static bool asks_for_text(const char *argument)
{
    return strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0 ||
           strcmp(argument, "--version") == 0 || strcmp(argument, "--write-reference=md") == 0 ||
           strcmp(argument, "--write-reference=man") == 0;
}

static void refuse_dashes(struct command *c, const char *argument)
{
    const char *name = argument + strspn(argument, "-");

    if (key_length(name) > 0)
        hy3_problem(&c->problems, "", "unknown option '%.120s'; keys have no dashes: %.120s",
                    argument, name);
    else
        hy3_problem(&c->problems, "", "unknown option '%.120s'; see --help", argument);
}

static hy3_status read_command(struct command *c, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *argument = argv[i];
        size_t length = key_length(argument);

        if (asks_for_text(argument))
            c->prints = c->prints ? c->prints : argument;
        else if (*argument == '-')
            refuse_dashes(c, argument);
        else if (length > 0)
            HY3_TRY(take_override(c, argument, length));
        else if (c->file)
            hy3_problem(&c->problems, "",
                        "two configuration files, '%.200s' and '%.200s'; give one", c->file,
                        argument);
        else
            c->file = argument;
    }
    return HY3_OK;
}

/* What --help and its like ask for, on standard output. */
static hy3_status print(const char *what, const char *summary)
{
    const char *program = hy3_log_program();

    if (strcmp(what, "--version") == 0) {
        printf("%s %s\n", program, HY3_VERSION);
        return HY3_OK;
    }
    if (strcmp(what, "--write-reference=md") == 0)
        return hy3_reference_write_md(stdout);
    if (strcmp(what, "--write-reference=man") == 0)
        return hy3_reference_write_man(stdout, program, summary);
    return hy3_help_write(stdout, program, summary);
}

/* The same on all ranks: whether there is a configuration file to read. */
static hy3_status check_command(const struct command *c)
{
    if (!c->file && c->problems.count > 0)
        return hy3_problems_status(&c->problems);
    if (!c->file)
        HY3_FAIL(HY3_EUSAGE, "no configuration file; usage: %s CONFIG [key=value ...], see --help",
                 hy3_log_program());
    if (hy3_ends_with(c->file, ".yaml") || hy3_ends_with(c->file, ".yml"))
        HY3_FAIL(HY3_EUSAGE,
                 "'%s': reading YAML is not available in this version (%s); write the keys as a "
                 "libconfig file",
                 c->file, HY3_VERSION);
    return HY3_OK;
}

/* Collective. Whether every rank was started with the same arguments: all that follows takes that
 * for granted. */
static hy3_status compare_commands(MPI_Comm comm, int argc, char **argv)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    int64_t lowest[2];

    for (int i = 1; i < argc; i++)
        for (const char *p = argv[i];; p++) {
            hash = (hash ^ (unsigned char)*p) * 0x100000001b3u;
            if (*p == '\0')
                break;
        }
    lowest[0] = (int64_t)(hash >> 1);
    lowest[1] = -lowest[0];
    hy3_allreduce_int(comm, lowest, 2, MPI_MIN, "comparing the arguments");
    if (lowest[0] == -lowest[1])
        return HY3_OK;
    HY3_FAIL(HY3_EUSAGE,
             "the ranks were started with different arguments; start all with the same");
}

/* Collective. The bytes of the file on every rank, read by rank 0; the caller owns *text. */
static hy3_status read_file(MPI_Comm comm, const char *path, char **text, size_t *size)
{
    hy3_status status = HY3_OK;
    int64_t bytes = 0;
    bool reads = hy3_rank(comm) == 0;

    if (reads)
        status = hy3_file_read(path, FILE_LIMIT, text, size);
    HY3_AGREE(comm, status, "reading the configuration");
    bytes = (int64_t)*size;
    hy3_broadcast(comm, 0, &bytes, sizeof bytes, "sharing the configuration");
    *size = (size_t)bytes;
    if (!reads)
        status = hy3_alloc(text, *size + 1, 1);
    HY3_AGREE(comm, status, "sharing the configuration");
    hy3_broadcast(comm, 0, *text, *size, "sharing the configuration");
    return status;
}

static void refuse_unknown(const struct hy3_setting *s, struct hy3_problems *problems)
{
    const char *nearest = hy3_option_nearest(s->key);

    if (nearest)
        hy3_problem(problems, s->where, "unknown key '%.64s'; did you mean '%s'?", s->key, nearest);
    else
        hy3_problem(problems, s->where, "unknown key '%.64s'; see --help", s->key);
}

/* Puts the settings into the configuration. given: who gave each option its value, so far. A file
 * may name a key once, by whichever name; of arguments the last counts. */
static hy3_status assign(const struct hy3_settings *settings, bool once, struct hy3_config *config,
                         const struct hy3_setting **given, struct hy3_problems *problems)
{
    for (size_t i = 0; i < settings->count; i++) {
        const struct hy3_setting *s = &settings->items[i];
        const struct hy3_option *o = hy3_option_find(s->key);
        const struct hy3_setting **giver;

        if (!o) {
            refuse_unknown(s, problems);
            continue;
        }
        giver = &given[hy3_option_index(o)];
        if (once && *giver)
            hy3_problem(problems, s->where, "'%s' and '%s' are the same key; keep one",
                        (*giver)->key, s->key);
        *giver = s;
        HY3_TRY(hy3_option_assign(o, s, config, problems));
    }
    return HY3_OK;
}

/* Local, with the same outcome on every rank unless memory runs out. */
static hy3_status resolve(struct hy3_config *config, struct command *c, const char *text,
                          size_t size)
{
    hy3_status status = HY3_OK;
    struct hy3_settings settings = {0};
    const struct hy3_setting **given = NULL;

    HY3_TRY_DONE(hy3_config_defaults(config));
    HY3_TRY_DONE(hy3_alloc(&given, (size_t)hy3_option_count(), sizeof(void *)));
    HY3_TRY_DONE(hy3_libconfig_read(text, size, c->file, &settings, &c->problems));
    HY3_TRY_DONE(assign(&settings, true, config, given, &c->problems));
    HY3_TRY_DONE(assign(&c->overrides, false, config, given, &c->problems));
    if (settings.count > 0 ||
        c->problems.count == 0) /* a file that is no libconfig lacks everything */
        HY3_TRY_DONE(hy3_config_check(config, given, hy3_log_program(), &c->problems));
    HY3_TRY_DONE(hy3_problems_status(&c->problems));
done:
    hy3_settings_free(&settings);
    hy3_free(given);
    return status;
}

hy3_status hy3_config_parse(struct hy3_config *config, MPI_Comm comm, int argc, char **argv,
                            const char *summary, bool *finished)
{
    hy3_status status = HY3_OK;
    struct command command = {0};
    char *text = NULL;
    size_t size = 0;

    *config = (struct hy3_config){0};
    *finished = false;
    HY3_TRY_DONE(compare_commands(comm, argc, argv));
    HY3_AGREE_DONE(comm, read_command(&command, argc, argv), "reading the arguments");
    if (command.prints) {
        *finished = true;
        if (hy3_rank(comm) == 0)
            status = print(command.prints, summary);
        HY3_AGREE_DONE(comm, status, "printing");
        goto done;
    }
    HY3_TRY_DONE(check_command(&command));
    HY3_TRY_DONE(read_file(comm, command.file, &text, &size));
    HY3_AGREE_DONE(comm, resolve(config, &command, text, size), "reading the configuration");
done:
    if (status != HY3_OK)
        hy3_config_free(config);
    hy3_settings_free(&command.overrides);
    hy3_free(text);
    return status;
}
