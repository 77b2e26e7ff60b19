/* SPDX-License-Identifier: Apache-2.0 */
/* settings.h - settings as read from a file or an argument: key, value as written, and place.
 *
 * Nothing here knows which keys exist; assign.h brings settings and options together. */
#pragma once

#include "config/config.h"
#include "config/problems.h"

enum hy3_value_type {
    HY3_VALUE_WORD, /* of the command line: the option decides what it is; texts holds it raw */
    HY3_VALUE_BOOL,
    HY3_VALUE_INT,
    HY3_VALUE_REAL,
    HY3_VALUE_TEXT,  /* texts holds it */
    HY3_VALUE_LIST,  /* of texts, maybe none */
    HY3_VALUE_MIXED, /* a list with something else in it */
    HY3_VALUE_NULL   /* of other tools' files: as if the key were not there */
};

struct hy3_setting {
    char *key;
    char *where; /* "run.cfg:12", "argument 'seed=1'" */
    enum hy3_value_type type;
    bool truth;
    int64_t integer;
    double real;
    struct hy3_list texts;
};

struct hy3_settings { /* zero: none */
    struct hy3_setting *items;
    size_t count, capacity;
};

/* Local. Appends a setting of that key; *out is valid until the next one. */
hy3_status hy3_settings_add(struct hy3_settings *settings, const char *key, const char *where,
                            struct hy3_setting **out);
void hy3_settings_free(struct hy3_settings *settings);

/* Local. Appends a copy of `from`, a setting of another tool (its type and texts), under another
 * key; *out as of hy3_settings_add. */
hy3_status hy3_settings_copy(struct hy3_settings *settings, const char *key,
                             const struct hy3_setting *from, struct hy3_setting **out);

/* Local. Gives all settings that place. */
hy3_status hy3_settings_place(struct hy3_settings *settings, const char *where);

/* Local. A copy of the first `size` bytes of `text` at the end of the list. */
hy3_status hy3_list_add(struct hy3_list *list, const char *text, size_t size);
void hy3_list_free(struct hy3_list *list);

/* Local. Appends copies of the texts of `from`. */
hy3_status hy3_list_copy(struct hy3_list *list, const struct hy3_list *from);

/* Local. Reads libconfig text of `size` bytes (and a NUL); path is for messages. Errors of the text
 * go to `problems`, with file and line. Refused: groups, @include, hexadecimal numbers, integers
 * beyond 64 bits. Errors: HY3_ENOMEM. */
hy3_status hy3_libconfig_read(const char *text, size_t size, const char *path,
                              struct hy3_settings *settings, struct hy3_problems *problems);
