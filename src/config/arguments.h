/* SPDX-License-Identifier: Apache-2.0 */
/* arguments.h - command lines of the programs that take no configuration file: --name value,
 * --name=value, words. */
#ifndef HY3_CONFIG_ARGUMENTS_H
#define HY3_CONFIG_ARGUMENTS_H

#include "base/error.h"

enum hy3_argument_type {
    HY3_ARG_WORD,  /* positional, in the order of the table; required */
    HY3_ARG_TEXT,  /* const char * */
    HY3_ARG_COUNT, /* int64_t, 0 or more */
    HY3_ARG_REAL,  /* double, finite, 0 or more */
    HY3_ARG_FLAG,  /* bool, no value */
};

struct hy3_argument {
    const char *name; /* without dashes; of a word: as shown in the usage line */
    enum hy3_argument_type type;
    void *target;      /* variable of that type, holding the default */
    const char *value; /* how the value is called in the help: "FILE" */
    const char *help;
};

struct hy3_usage {
    const char *program, *summary; /* "hy3_init", "makes a small random checkpoint" */
    const struct hy3_argument *arguments;
    int count;
};

/* Local. Fills the targets; texts are borrowed from argv. --help and --version print to standard
 * output (if `writes`) and set
 * *finished. Errors: HY3_EUSAGE naming the argument, with the nearest known one. */
hy3_status hy3_arguments_parse(const struct hy3_usage *usage, int argc, char **argv, bool writes,
                               bool *finished);

#endif
