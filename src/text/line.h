/* SPDX-License-Identifier: Apache-2.0 */
/* line.h - a JSON value of a user's data. */
#pragma once

#include "base/error.h"

#include <jansson.h>

/* Local. Parses all of the text; a number that jansson cannot hold becomes an object that pyjson.h
 * knows (HY3_BIG_NUMBER), so that a key nobody reads does not make a line invalid. Errors:
 * HY3_EFORMAT, also for a key given twice and for values of over HY3_JSON_MEMORY; HY3_ENOMEM. The
 * caller owns *out. */
hy3_status hy3_json_line(const char *text, size_t size, json_t **out);

/* Whether the value is a text that is not empty; false for NULL. */
bool hy3_json_has_text(const json_t *value);

/* Sets the key to `value`, which is taken; NULL: out of memory. Errors: HY3_ENOMEM. */
hy3_status hy3_json_set(json_t *object, const char *key, json_t *value);

/* Fails with HY3_ENOMEM. */
hy3_status hy3_json_no_memory(void);

/* The value of a key of the line; NULL where the name is "", or the line has null. */
json_t *hy3_json_column(json_t *line, const char *name);

/* Whether the message has that role; false for "". */
bool hy3_json_is_role(const json_t *message, const char *role);
