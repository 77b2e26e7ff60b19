/* SPDX-License-Identifier: Apache-2.0 */
/* keys.h - keys of a line that hy3 does not read: those that look misspelt, or that would change
 * what is learned, are refused; all others are noted by name, so that nothing is dropped in
 * silence. */
#pragma once

#include "base/error.h"

#include <jansson.h>

/* The objects of a line, from the outermost in. */
enum hy3_level {
    HY3_LEVEL_LINE,
    HY3_LEVEL_MESSAGE,
    HY3_LEVEL_PART,
    HY3_LEVEL_CALL,       /* an entry of tool_calls with "function" */
    HY3_LEVEL_PLAIN_CALL, /* one without: name and arguments stand in it */
    HY3_LEVEL_FUNCTION,   /* its "function" */
    HY3_LEVELS
};

/* Of a line so many names are noted, the others as one. */
enum { HY3_KEYS_NOTED = 64 };

#define HY3_KEYS_OTHERS "(others)"

/* The names of an assistant's reasoning; the first that is given is read. */
enum { HY3_REASONING_NAMES = 3 };

extern const char *const hy3_reasoning_names[HY3_REASONING_NAMES];

/* Local. Checks the keys of `object`. place: "message 3: ", before a refusal's text. unread: an
 * object; a key that is not read is added to it as "messages[].name". Errors: HY3_EFORMAT. */
hy3_status hy3_keys_check(json_t *object, enum hy3_level level, const char *place, json_t *unread);

/* Local. Notes a key that is read in other places but not here: `why` says where it stands,
 * " (user)". */
hy3_status hy3_keys_note(enum hy3_level level, const char *key, const char *why, json_t *unread);
