/* SPDX-License-Identifier: Apache-2.0 */
/* arguments.c - the command line, read once, on all ranks alike. */
#include "config/arguments.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/path.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "config/assign.h"
#include "config/foreign/flags.h"
#include "config/load.h"
#include "config/paths.h"
#include "config/version.h"

#include <ctype.h>

struct command { /* what the arguments ask for */
    const struct hy3_usage *usage;
    const char *file;       /* CONFIG, borrowed from argv */
    const char *prints;     /* --help, --version, --write-reference=…: borrowed from argv */
    uint64_t given;         /* a bit for each entry of the arguments */
    const char *values[64]; /* of those, as written: borrowed from argv */
    bool prints_config;     /* --print-config */
    bool takes_flags;       /* those of another tool, instead of CONFIG */
    enum hy3_origin origin;
    struct hy3_settings flags, overrides;
    struct hy3_problems problems;
};

/* Characters of the key of "key=value", 0 if it is none: a path may hold a '=' too. */
static size_t key_length(const char *argument)
{
    size_t n = 0;

    while (isalnum((unsigned char)argument[n]) || argument[n] == '_' || argument[n] == '.')
        n++;
    return argument[n] == '=' && *argument != '.' ? n : 0;
}

/* Whether the word is "name=value" of an argument, which is told how to write it. */
static bool refuse_pair(struct command *c, const char *word)
{
    const char *equals = strchr(word, '=');
    const struct hy3_option *found = NULL;

    for (const struct hy3_option *o = c->usage->arguments; equals && o->key && !found; o++) {
        size_t i = 0;

        while (word + i < equals && (o->key[i] == word[i] || (o->key[i] == '-' && word[i] == '_')))
            i++;
        if (o->type != HY3_WORD && word + i == equals && o->key[i] == '\0')
            found = o;
    }
    if (!found)
        return false;
    hy3_problem(&c->problems, "", "'%.120s' is an argument of %s: write --%s%s%.80s", word,
                c->usage->program, found->key, found->type == HY3_BOOL ? "" : " ",
                found->type == HY3_BOOL ? "" : equals + 1);
    return true;
}

static hy3_status take_override(struct command *c, const char *argument, size_t length)
{
    char key[64], where[160];
    struct hy3_setting *setting;
    const char *value = argument + length + 1;

    snprintf(key, sizeof key, "%.*s", (int)(length < 63 ? length : 63), argument);
    if (refuse_pair(c, argument))
        return HY3_OK;
    snprintf(where, sizeof where, "argument '%.120s'", argument);
    HY3_TRY(hy3_settings_add(&c->overrides, key, where, &setting));
    return hy3_list_add(&setting->texts, value, strlen(value));
}

static bool asks_for_text(const struct hy3_usage *u, const char *argument)
{
    return strcmp(argument, "--help") == 0 || strcmp(argument, "-h") == 0 ||
           strcmp(argument, "--version") == 0 || strcmp(argument, "--write-reference=man") == 0 ||
           (u->config && (strcmp(argument, "--write-reference=md") == 0 ||
                          strcmp(argument, "--write-reference=migration") == 0));
}

/* The argument that begins with `name`, if only one does, else the one most like it. */
static const char *nearest_argument(const struct hy3_option *table, const char *name)
{
    const char *found = NULL;
    size_t length = strlen(name);
    int count = 0;

    for (const struct hy3_option *o = table; o->key && length > 0; o++)
        if (o->type != HY3_WORD && strncmp(o->key, name, length) == 0) {
            found = o->key;
            count++;
        }
    return count == 1 ? found : hy3_option_nearest(table, name);
}

/* Whether the word is, or begins with, a key of the program's configuration: "seed", "seed=3". */
static bool has_key(const struct command *c, const char *word)
{
    char key[64];
    size_t length = strcspn(word, "= ");

    if (!c->usage->config || length >= sizeof key)
        return false;
    snprintf(key, sizeof key, "%.*s", (int)length, word);
    return hy3_option_find(hy3_options, key) != NULL;
}

static void refuse_unknown(struct command *c, const char *argument, const char *name)
{
    const char *nearest = nearest_argument(c->usage->arguments, name);
    const char *bare = argument + strspn(argument, "-");

    if (nearest)
        hy3_problem(&c->problems, "", "unknown argument '%.120s'; did you mean '--%s'?", argument,
                    nearest);
    else if (key_length(bare) > 0 && has_key(c, bare))
        hy3_problem(&c->problems, "", "unknown argument '%.120s'; keys have no dashes: %.120s",
                    argument, bare);
    else if (has_key(c, bare))
        hy3_problem(&c->problems, "", "unknown argument '%.120s'; keys have no dashes: %.120s=…",
                    argument, bare);
    else
        hy3_problem(&c->problems, "", "unknown argument '%.120s'; see --help", argument);
}

/* value: NULL for a flag. */
static hy3_status set(struct command *c, const struct hy3_option *o, char *value)
{
    char where[160];
    struct hy3_setting s = {.where = where, .texts = {.items = &value, .count = 1}};
    int place = (int)(o - c->usage->arguments);

    if (c->given >> place & 1 && value && strcmp(value, c->values[place]) != 0)
        hy3_log(HY3_LOG_WARN, "--%s is given twice, as %.80s and as %.80s; the last counts: %.80s",
                o->key, c->values[place], value, value);
    c->values[place] = value;
    c->given |= (uint64_t)1 << place;
    if (o->type == HY3_TEXT || o->type == HY3_WORD) {
        memcpy(o->target, &value, sizeof value);
        return HY3_OK;
    }
    if (o->type == HY3_BOOL) {
        *(bool *)o->target = true;
        return HY3_OK;
    }
    snprintf(where, sizeof where, "argument '--%s %.80s'", o->key, value);
    return hy3_option_assign(o, &s, NULL, &c->problems);
}

/* Whether the word is --NAME of an argument: the value before it was forgotten. */
static bool is_named(const struct command *c, const char *word)
{
    return strncmp(word, "--", 2) == 0 && hy3_option_find(c->usage->arguments, word + 2);
}

/* Takes argv[*i], a "--name…", and its value. */
static hy3_status take_named(struct command *c, int argc, char **argv, int *i)
{
    char name[64], *equals = strchr(argv[*i], '=');
    const char *begin = argv[*i] + 2;
    int length = equals ? (int)(equals - begin) : (int)strlen(begin);
    const struct hy3_option *o;

    snprintf(name, sizeof name, "%.*s", length, begin);
    o = hy3_option_find(c->usage->arguments, name);
    if (!o || o->type == HY3_WORD) {
        refuse_unknown(c, argv[*i], name);
        *i += !equals && *i + 1 < argc && argv[*i + 1][0] != '-'; /* likely its value */
        return HY3_OK;
    }
    if (o->type == HY3_BOOL && equals)
        hy3_problem(&c->problems, "", "'--%s' takes no value", name);
    else if (o->type == HY3_BOOL || equals)
        return set(c, o, equals ? equals + 1 : NULL);
    else if (*i + 1 < argc && !is_named(c, argv[*i + 1]))
        return set(c, o, argv[++*i]);
    else
        hy3_problem(&c->problems, "", "'--%s' needs a value", name);
    return HY3_OK;
}

/* A word that is no argument. */
static void refuse_word(struct command *c, const char *word)
{
    if (*word == '\0')
        hy3_problem(&c->problems, "", "an argument is empty");
    else if (!c->usage->config)
        hy3_problem(&c->problems, "", "unexpected argument '%.200s'; see --help", word);
    else if (*word == '=' || (has_key(c, word) && strchr(word, '=')))
        hy3_problem(&c->problems, "", "'%.200s': write key=value, without blanks", word);
    else if (has_key(c, word))
        hy3_problem(&c->problems, "", "the key '%.64s' has no value; write %.64s=…", word, word);
    else
        hy3_problem(&c->problems, "", "two configuration files, '%.200s' and '%.200s'; give one",
                    c->file, word);
}

/* Takes a word: CONFIG, or the next positional argument. */
static hy3_status take_word(struct command *c, char *word)
{
    const struct hy3_option *o = c->usage->arguments;

    if (!hy3_path_exists(word) && refuse_pair(c, word))
        return HY3_OK;
    while (o->key && (o->type != HY3_WORD || c->given >> (o - c->usage->arguments) & 1))
        o++;
    if (o->key)
        return set(c, o, word);
    if (c->usage->config && !c->file)
        c->file = word;
    else
        refuse_word(c, word);
    return HY3_OK;
}

/* "-n 4": there are no short names but -h. */
static void refuse_short(struct command *c, int argc, char **argv, int *i)
{
    refuse_unknown(c, argv[*i], argv[*i] + 1);
    *i += *i + 1 < argc && argv[*i + 1][0] != '-' && !strchr(argv[*i], '='); /* likely its value */
}

/* Whether the command line goes on with flags of another tool: they stand instead of CONFIG, with
 * arguments key=value among them. */
static bool is_foreign(struct command *c, int argc, char **argv, int i)
{
    if (is_named(c, argv[i]))
        return false;
    if (!c->takes_flags && !c->file && strncmp(argv[i], "--", 2) == 0 && c->usage->lists_keys)
        c->takes_flags = hy3_flags_find(argc, argv, &c->origin);
    return c->takes_flags && !hy3_flags_is_pair(c->origin, argv[i]);
}

static hy3_status read_command(struct command *c, int argc, char **argv)
{
    const struct hy3_option *table = c->usage->arguments;
    bool is_clean; /* else what seems to be missing may be misspelt */

    for (int i = 1; i < argc; i++) {
        size_t length = c->usage->config ? key_length(argv[i]) : 0;

        if (asks_for_text(c->usage, argv[i]))
            c->prints = c->prints ? c->prints : argv[i];
        else if (c->usage->config && strcmp(argv[i], "--print-config") == 0)
            c->prints_config = true;
        else if (is_foreign(c, argc, argv, i))
            HY3_TRY(hy3_flag_read(c->origin, argc, argv, &i, &c->flags, &c->problems));
        else if (strncmp(argv[i], "--", 2) == 0)
            HY3_TRY(take_named(c, argc, argv, &i));
        else if (argv[i][0] == '-')
            refuse_short(c, argc, argv, &i);
        else if (length > 0)
            HY3_TRY(take_override(c, argv[i], length));
        else
            HY3_TRY(take_word(c, argv[i]));
    }
    is_clean = c->problems.count == 0 && !c->prints_config;
    for (int i = 0; is_clean && table[i].key; i++)
        if ((table[i].type == HY3_WORD || table[i].required) && !(c->given >> i & 1))
            hy3_problem(&c->problems, "", "the argument %s%s is missing; see --help",
                        table[i].type == HY3_WORD ? "" : "--", table[i].key);
    return HY3_OK;
}

/* What --help and its like ask for, on standard output. */
static hy3_status print(const struct hy3_usage *u, const char *what)
{
    if (strcmp(what, "--version") == 0) {
        printf("%s %s\n", u->program, HY3_VERSION);
        return HY3_OK;
    }
    if (strcmp(what, "--write-reference=md") == 0)
        return hy3_reference_write_md(stdout);
    if (strcmp(what, "--write-reference=migration") == 0)
        return hy3_reference_write_migration(stdout);
    if (strcmp(what, "--write-reference=man") == 0)
        return hy3_reference_write_man(stdout, u);
    return hy3_help_write(stdout, u);
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

/* Collective. The configuration, and --print-config. */
static hy3_status load(struct command *c, MPI_Comm comm, bool *finished)
{
    hy3_status status = HY3_OK;
    const struct hy3_config_source source = {.path = c->file,
                                             .flags = c->takes_flags ? &c->flags : NULL,
                                             .origin = c->origin,
                                             .overrides = &c->overrides,
                                             .program = c->usage->program};
    char *text = NULL;

    HY3_TRY_DONE(hy3_config_load(c->usage->config, comm, &source, &c->problems));
    if (!c->prints_config)
        goto done;
    *finished = true;
    if (hy3_rank(comm) == 0 && (status = hy3_config_format(c->usage->config, &text)) == HY3_OK)
        fputs(text, stdout);
    HY3_AGREE_DONE(comm, status, "printing");
done:
    hy3_free(text);
    return status;
}

/* Collective. Whether the files and directories that the arguments name can be used. */
static hy3_status find_paths(MPI_Comm comm, const struct hy3_option *arguments)
{
    struct hy3_problems problems = {0};

    if (hy3_rank(comm) == 0)
        hy3_paths_of_arguments(arguments, &problems);
    return hy3_agree(comm, hy3_problems_status(&problems), "looking for the files");
}

hy3_status hy3_arguments_parse(MPI_Comm comm, const struct hy3_usage *usage, int argc, char **argv,
                               bool *finished)
{
    hy3_status status = HY3_OK;
    struct command c = {.usage = usage};

    *finished = false;
    if (usage->config)
        *usage->config = (struct hy3_config){0};
    HY3_TRY_DONE(compare_commands(comm, argc, argv));
    HY3_AGREE_DONE(comm, read_command(&c, argc, argv), "reading the arguments");
    if (c.prints) {
        *finished = true;
        if (hy3_rank(comm) == 0)
            status = print(usage, c.prints);
        HY3_AGREE_DONE(comm, status, "printing");
    } else if (usage->config && (c.file || c.takes_flags || c.problems.count == 0)) {
        status = load(&c, comm, finished);
    } else {
        status = hy3_problems_status(&c.problems);
    }
    if (status == HY3_OK && !*finished)
        status = find_paths(comm, usage->arguments);
done:
    hy3_settings_free(&c.flags);
    hy3_settings_free(&c.overrides);
    return status;
}

hy3_status hy3_config_parse(struct hy3_config *config, MPI_Comm comm, int argc, char **argv,
                            const char *summary, bool *finished)
{
    static const struct hy3_option none = {.key = NULL};
    const struct hy3_usage usage = {hy3_log_program(), summary, &none, config, true};

    return hy3_arguments_parse(comm, &usage, argc, argv, finished);
}
