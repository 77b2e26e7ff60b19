/* SPDX-License-Identifier: Apache-2.0 */
/* pyjson.h - JSON as Python's json.dumps(value, ensure_ascii=False) writes it, which is what chat
 * templates print. */
#pragma once

#include "text/text.h"

#include <jansson.h>

/* A number that jansson cannot hold is kept by message.c as {HY3_BIG_NUMBER: "its digits"}. */
#define HY3_BIG_NUMBER "\x7fhy3 number"

/* Local. Appends `value`: ", " and ": " between items, keys in file order, floats as repr()
 * does. */
hy3_status hy3_pyjson_append(struct hy3_text *out, const json_t *value);

/* Local. Appends a float as Python's repr() writes it: the shortest digits that read back as the
 * same double. */
hy3_status hy3_pyjson_append_real(struct hy3_text *out, double value);
