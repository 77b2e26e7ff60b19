/* SPDX-License-Identifier: Apache-2.0 */
/* reference.c - the key reference in Markdown and manual pages, from the option table. */
#include "base/memory.h"
#include "config/assign.h"
#include "config/help.h"
#include "config/version.h"

/* Writes one option; value: its default, values: what it must be. */
typedef void (*write_option)(FILE *out, const struct hy3_option *o, const char *value,
                             const char *values);
typedef void (*write_group)(FILE *out, const char *title);

static hy3_status walk(FILE *out, write_group group, write_option option)
{
    hy3_status status = HY3_OK;
    struct hy3_config defaults = {0};
    char *value = NULL, values[256];

    HY3_TRY_DONE(hy3_config_defaults(&defaults));
    for (const struct hy3_option *o = hy3_options; o->key; o++) {
        if (o->type == HY3_GROUP) {
            group(out, o->key);
            continue;
        }
        HY3_TRY_DONE(hy3_option_format(o, &defaults, &value));
        hy3_option_describe(o, values, sizeof values);
        option(out, o, value, values);
        hy3_free(value);
        value = NULL;
    }
done:
    hy3_config_free(&defaults);
    return status;
}

/* Calls for each word: before the first, between two. */
static void write_words(FILE *out, const char *words, const char *between)
{
    const char *word, *before = "";
    size_t length;

    for (; (word = hy3_option_word(&words, &length)); before = between)
        fprintf(out, "%s%.*s", before, (int)length, word);
}

static void md_group(FILE *out, const char *title)
{
    fprintf(out,
            "\n## %c%s\n\n| key | default | value | resuming | meaning |\n"
            "|---|---|---|---|---|\n",
            title[0] - 'a' + 'A', title + 1);
}

static void md_option(FILE *out, const struct hy3_option *o, const char *value, const char *values)
{
    static const char *const resume[] = {[HY3_RESUME_FIXED] = "fixed",
                                         [HY3_RESUME_MAY_CHANGE] = "may change",
                                         [HY3_RESUME_FREE] = "free"};

    fprintf(out, "| `%s` | %s%s%s | %s | %s | %s", o->key, *value ? "`" : "",
            *value ? value : "not set", *value ? "`" : "", values, resume[o->resume], o->help);
    if (o->aliases) {
        fputs("; also called `", out);
        write_words(out, o->aliases, "` `");
        fputc('`', out);
    }
    if (o->only) {
        fputs("; in this version ", out);
        if (*o->only)
            write_words(out, o->only, " or ");
        else
            fputs("only the default", out);
    }
    fputs(" |\n", out);
}

hy3_status hy3_reference_write_md(FILE *out)
{
    fprintf(out,
            "# Configuration keys of hy3 %s\n\n"
            "Written by `hy3_sft --write-reference=md` from the option table "
            "(src/config/options.c).\n\n"
            "A configuration is a libconfig file of lines `key = value;` with comments from `#` "
            "to the end of the line.\n"
            "Arguments `key=value` override it: `hy3_sft run.cfg max_steps=10 "
            "train_data_file=a.jsonl,b.jsonl`;\n"
            "an empty value (`min_lr_rate=`) restores the default of any key. Numbers are decimal, "
            "booleans `true` and `false`, sizes\n"
            "have a unit (`5GB` or `5G`; `KiB`, `MiB`, `GiB` are powers of 1024), texts are in "
            "double quotes (on the command line only where a list needs them), lists are "
            "`[\"a\", \"b\"]`.\n"
            "Paths are relative to the working directory. An unknown key is an error, and all "
            "errors of a file and its\n"
            "arguments are reported together. The resolved configuration is written to "
            "`output_dir/config.cfg`.\n\n"
            "\"resuming\" says what a new value means when the same output_dir is named again: "
            "`free` changes no weight\n"
            "beyond rounding; `may change` changes the rest of the run, which continues (the "
            "batch size only at the same\n"
            "global batch); with a `fixed` key it is another run, which is refused, or with "
            "`overwrite_output_dir` starts\n"
            "over. Model, data and tokenizer are free as paths: their content is compared.\n",
            HY3_VERSION);
    return walk(out, md_group, md_option);
}

/* Text in troff: quotes would end a macro's argument, a hyphen is not a minus. */
static void man_text(FILE *out, const char *text)
{
    for (const char *p = text; *p; p++) {
        if (*p == '\\' || *p == '"')
            fputs(*p == '"' ? "\\(dq" : "\\e", out);
        else if (*p == '-')
            fputs("\\-", out);
        else
            fputc(*p, out);
    }
}

static void man_group(FILE *out, const char *title)
{
    fprintf(out, ".SS %c%s\n", title[0] - 'a' + 'A', title + 1);
}

static void man_option(FILE *out, const struct hy3_option *o, const char *value, const char *values)
{
    char note[512];

    hy3_option_note(o, note, sizeof note);
    fprintf(out, ".TP\n.B %s", o->key);
    if (*value) {
        fputs(" = ", out);
        man_text(out, value);
    }
    fputc('\n', out);
    man_text(out, o->help);
    fputs(*note ? "\n" : "", out);
    man_text(out, note);
    fputc('\n', out);
}

/* What each program can end with. Those that compute on one rank alone lose no other. */
static const struct ending {
    const char *program, *codes;
    const char *failure; /* what code 1 means besides; NULL: nothing more */
} endings[] = {
    {"hy3_sft", "0 1 2 3 4 75", NULL},
    {"hy3_tokenize", "0 1 2 4 75", NULL},
    {"hy3_init", "0 1 2 4 75", NULL},
    {"hy3_generate", "0 1 2 75", NULL},
    {"hy3_check", "0 1 2 4 75", "the directory is not valid"},
    {"hy3_convert", "0 1 2 4 75", NULL},
    {"hy3_merge", "0 1 2 3 4 75", NULL},
    {"hy3_export", "0 1 2 3 4 75", NULL},
    {"hy3_plan", "0 1 2 75", "the run does not fit into the given memory"},
};

static void write_code(FILE *out, int code, const char *failure)
{
    static const struct {
        int code;
        const char *meaning;
    } rows[] = {

#define X(name, code, meaning) {code, meaning},
        HY3_STATUSES(X)
#undef X
    };
    const char *before = code == 1 ? "failed while working: " : "";

    fprintf(out, ".TP\n.B %d\n", code);
    if (code == 1 && failure)
        fprintf(out, "%s; or ", failure);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].code != code)
            continue;
        fprintf(out, "%s%s", before, rows[i].meaning);
        before = "; or ";
    }
    fputc('\n', out);
}

void hy3_reference_write_exit(FILE *out, const char *program)
{
    const struct ending *e = endings;
    const char *list, *word;
    size_t length;

    while (strcmp(e->program, program) != 0)
        if (++e == endings + sizeof endings / sizeof *endings)
            HY3_BUG("'%s' has no exit codes", program);
    fputs(".SH EXIT STATUS\n", out);
    for (list = e->codes; (word = hy3_option_word(&list, &length));)
        write_code(out, (int)strtol(word, NULL, 10), e->failure);
}

/* Of every program. */
static void write_signals(FILE *out)
{
    fputs(
        ".SH SIGNALS\n"
        "SIGINT, SIGTERM, SIGUSR1 and SIGXCPU are requests to stop: within seconds, a training "
        "step or\na checkpoint under way excepted, the program ends with status 75; nothing is "
        "left half\nwritten, and the same command continues or begins again. A second SIGINT "
        "ends it at once\nwith status 130. SIGHUP, SIGPIPE and SIGUSR2 are ignored. Signals are "
        "for the ranks:\nMPICH's mpiexec passes on SIGINT, SIGTERM and SIGUSR1, but may end "
        "with 0 then, and is\nitself ended by the others, as are its ranks.\n",
        out);
}

static void write_environment(FILE *out)
{
    fputs(
        ".SH ENVIRONMENT\n"
        ".TP\n.B HY3_LOG\n"
        "quiet (warnings and errors), info (the default) or debug.\n"
        ".TP\n.B OMP_NUM_THREADS\n"
        "threads of a rank; not set, or not from 1 to 1024: its share of the CPUs it may run on.\n"
        ".TP\n.B HDF5_USE_FILE_LOCKING\n"
        "not set: FALSE, since some file systems have no locks and hy3 needs none of HDF5.\n"
        ".TP\n.B GOMP_SPINCOUNT\n"
        "turns that an idle thread of GNU OpenMP waits before it sleeps; where neither this nor\n"
        "OMP_WAIT_POLICY is set, hy3 sets 1000 and starts itself once more.\n",
        out);
}

static void write_argument(FILE *out, const struct hy3_option *o)
{
    if (o->value)
        fprintf(out, ".TP\n.BI \\-\\-%s \" %s\"\n", o->key, o->value);
    else
        fprintf(out, ".TP\n.B %s%s\n", o->type == HY3_WORD ? "" : "\\-\\-", o->key);
    man_text(out, o->help);
    fputc('\n', out);
}

static void write_arguments(FILE *out, const struct hy3_usage *u)
{
    if (u->config)
        fputs(".I CONFIG\n", out);
    for (const struct hy3_option *o = u->arguments; o->key; o++)
        if (o->type == HY3_WORD)
            fprintf(out, ".I %s\n", o->key);
    fputs(".RI [\\-\\- name \" \" value \" ...]\"\n", out);
    if (u->config)
        fputs(".RI [ key = value \" ...]\"\n", out);
    fputs(".SH ARGUMENTS\n", out);
    if (u->config)
        fputs(".TP\n.B CONFIG\n" HY3_HELP_CONFIG "\n.TP\n.IR key = value\n" HY3_HELP_KEYS
              "; they are those of\n.BR hy3_sft (1)\n",
              out);
    for (const struct hy3_option *o = u->arguments; o->key; o++)
        write_argument(out, o);
    if (u->config)
        fputs(".TP\n.B \\-\\-print\\-config\n" HY3_HELP_PRINT ".\n", out);
    fputs(
        ".TP\n.B \\-\\-help\nprints the arguments.\n"
        ".TP\n.B \\-\\-version\nprints the version.\n",
        out);
    hy3_reference_write_exit(out, u->program);
    write_signals(out);
    fputs(".SH SEE ALSO\n.BR hy3_sft (1)\n", out);
}

/* Of a program that is about its configuration. */
static hy3_status write_configuration(FILE *out, const struct hy3_usage *u)
{
    const char *program = u->program;
    bool lists_keys = strcmp(program, "hy3_sft") == 0;

    fprintf(out,
            ".I CONFIG\n.RI [ key = value \" ...\"]\n.br\n.B mpiexec \\-n\n.I N\n.B %s\n.I CONFIG\n"
            ".RI [ key = value \" ...\"]\n",
            program);
    fputs(
        ".SH DESCRIPTION\n"
        ".I CONFIG\nis a libconfig file of lines key = value; the arguments override it.\n"
        "In the file, texts are in double quotes and lists are [\"a\", \"b\"];\n"
        "as an argument a list is a,b or [\"a\",\"b\"], and an empty value restores the default.\n"
        "Paths are relative to the working directory.\n"
        "All errors of the file and the arguments are reported together.\n"
        "A .yaml or .json of LLaMA\\-Factory or ms\\-swift can stand in place of CONFIG, or the "
        "flags of\nthese and of Hy3's train.py.\n"
        ".SH OPTIONS\n.TP\n.B \\-\\-help\nlists all keys.\n"
        ".TP\n.B \\-\\-version\nprints the version.\n"
        ".TP\n.B \\-\\-print\\-config\n" HY3_HELP_PRINT ".\n",
        out);
    for (const struct hy3_option *o = u->arguments; o->key; o++)
        write_argument(out, o);
    fputs(".SH KEYS\n", out);
    if (lists_keys)
        HY3_TRY(walk(out, man_group, man_option));
    else
        fputs(
            "As for\n.BR hy3_sft (1);\n"
            "only the groups model and data have an effect.\n",
            out);
    hy3_reference_write_exit(out, program);
    write_signals(out);
    write_environment(out);
    fprintf(out, ".SH SEE ALSO\n.BR hy3_init (1),\n.BR %s (1),\n.BR hy3_generate (1)\n",
            lists_keys ? "hy3_tokenize" : "hy3_sft");
    return HY3_OK;
}

hy3_status hy3_reference_write_man(FILE *out, const struct hy3_usage *u)
{
    fprintf(out, ".\\\" written by %s \\-\\-write\\-reference=man\n.TH %s 1 \"\" \"hy3 %s\" hy3\n",
            u->program, u->program, HY3_VERSION);
    fprintf(out, ".SH NAME\n%s \\- %c%.*s\n.SH SYNOPSIS\n.B %s\n", u->program, u->summary[0] | 0x20,
            (int)strcspn(u->summary + 1, "."), u->summary + 1, u->program);
    if (u->lists_keys)
        return write_configuration(out, u);
    write_arguments(out, u);
    return HY3_OK;
}
