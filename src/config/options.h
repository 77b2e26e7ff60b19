/* SPDX-License-Identifier: Apache-2.0 */
/* options.h - tables of options: the keys of the configuration, and the arguments of a program.
 *
 * Parsing, defaults, ranges, availability, --help, the manual, the nearest-key hint and the echo at
 * the start all come from an entry. A new key is a field in config.h, which has its name, and an
 * entry in options.c. */
#pragma once

#include "base/path.h"
#include "config/config.h"

enum hy3_option_type {
    HY3_OPTION_END, /* of the table */
    HY3_GROUP,      /* a heading: the key is its title */
    HY3_TEXT,       /* char *; NULL: not set; of an argument const char *, borrowed from argv */
    HY3_LIST,       /* struct hy3_list; empty: not set */
    HY3_COUNT,      /* int64_t */
    HY3_REAL,       /* double; below the range: not set */
    HY3_BOOL,       /* bool; of an argument a flag without a value */
    HY3_CHOICE,     /* an enum: the place of the word among `words` */
    HY3_SET,        /* int64_t: bit i for word i + 1 of `words`, whose first is the empty set */
    HY3_SIZE,       /* char *, "5GB"; of an argument int64_t, bytes */
    HY3_WORD,       /* of an argument: positional, as HY3_TEXT */
};

/* What a new value means to a run that is continued. */
enum hy3_option_resume {
    HY3_RESUME_FIXED,      /* another run: refused */
    HY3_RESUME_MAY_CHANGE, /* allowed, and changes the rest of the run or the form of its result */
    HY3_RESUME_FREE,       /* allowed, and changes no weight beyond rounding */
};

/* An entry: a key of the configuration, or an argument of one program. */
struct hy3_option {
    const char *key; /* of an argument: without dashes */
    enum hy3_option_type type;
    size_t offset;          /* in struct hy3_config */
    void *target;           /* of an argument: its variable, which holds the default */
    const char *value;      /* of an argument: the name of its value in the help, "FILE" */
    bool required;          /* of an argument; a positional one always is */
    enum hy3_path_use path; /* of an argument that is one: what it is used for */

    union {
        const char *text; /* text, size: the default; list: its words */
        bool truth;
        const char *const *words; /* choice, set: the default first, NULL at the end */

        struct {
            int64_t initial, low, high; /* high 0: no limit */
            bool automatic;             /* 0 is written "auto" */
        } count;

        struct {
            double initial, low, high; /* high 0: no limit */
        } real;
    };

    const char *only; /* the values this version supports, as words; NULL: all; "": the default */
    const char *aliases; /* words; NULL: none */
    enum hy3_option_resume resume;
    const char *help; /* one line, lower case */
};

/* The first fields of an argument's entry. */
#define HY3_ARGUMENT(key_, type_, target_, value_, help_) \
    .key = key_, .type = type_, .target = target_, .value = value_, .help = help_

/* The configuration's; as every table it ends with an entry of zeros (HY3_OPTION_END). */
extern const struct hy3_option hy3_options[];

/* The entry of that key or alias, NULL if there is none. */
const struct hy3_option *hy3_option_find(const struct hy3_option *table, const char *key);

/* The key or alias of the table that is most like `key`, NULL if none is. */
const char *hy3_option_nearest(const struct hy3_option *table, const char *key);

/* The place of `word` among the words of a choice, -1 if it is none of them. */
int hy3_option_choice(const struct hy3_option *option, const char *word);

/* Place of the option in the table of the configuration. */
int hy3_option_index(const struct hy3_option *option);
int hy3_option_count(void);

/* Takes the next word of a list of words: returns it, its length in *length, and moves *list on;
 * NULL at the end. */
const char *hy3_option_word(const char **list, size_t *length);

/* Whether `word` is in the list of words. */
bool hy3_option_has_word(const char *list, const char *word);

/* What a value must be: "a whole number, 1 to 64", "one of full, lora". */
void hy3_option_describe(const struct hy3_option *option, char *out, size_t size);

/* What help and manual add to the help line: "(a whole number, 1 or more; also cutoff_len)"; ""
 * where there is nothing. */
void hy3_option_note(const struct hy3_option *option, char *out, size_t size);

/* Whether the configuration holds a value for it (texts, lists and numbers may be not set). */
bool hy3_option_is_set(const struct hy3_option *option, const struct hy3_config *config);

/* Local. The value in *config as it is written into a file: 1e-05, "a\"b", ["a", "b"]; the caller
 * owns *out. */
hy3_status hy3_option_format(const struct hy3_option *option, const struct hy3_config *config,
                             char **out);

/* The variable of an argument, or the field of *config. */
static inline void *hy3_option_field(const struct hy3_option *option, struct hy3_config *config)
{
    return option->target ? option->target : (char *)config + option->offset;
}

static inline const void *hy3_option_value(const struct hy3_option *option,
                                           const struct hy3_config *config)
{
    return (const char *)config + option->offset;
}
