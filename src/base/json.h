/* SPDX-License-Identifier: Apache-2.0 */
/* json.h - JSON files through jansson, with messages that name file, line and key.
 *
 * A getter of a missing key fails; the _or forms take a default. Wrong types always fail. `where`
 * is the name of the file for messages. Texts are bytes of valid UTF-8, possibly with NUL
 * inside. */
#pragma once

#include "base/error.h"

#include <jansson.h>

/* Local. Refuses a text whose values would take over `limit` bytes of host memory once parsed,
 * their texts not counted: 3 bytes "[]," take 200. An estimate, from the punctuation. where:
 * NULL if the caller names the place. Errors: HY3_EFORMAT. */
enum { HY3_JSON_MEMORY = 512 << 20 }; /* twice what the largest published tokenizers take */

hy3_status hy3_json_bound(const char *text, size_t size, const char *where, size_t limit);

/* Local. Parses `size` bytes. Errors: HY3_EFORMAT with line and column. The caller owns *out
 * (json_decref). A byte order mark is skipped; NUL escapes are legal; nesting over 2048 and values
 * of over HY3_JSON_MEMORY are refused. */
hy3_status hy3_json_parse(const char *text, size_t size, const char *where, json_t **out);

/* Local. Reads and parses a file of at most `limit` bytes; the top level must be an object. */
hy3_status hy3_json_read(const char *path, size_t limit, json_t **out);

/* Local. Writes with two spaces of indent by hy3_output_replace. */
hy3_status hy3_json_write(const char *path, const json_t *value);

/* Local. Integers of low..high; a missing or null key gives `initial` in the _or form. */
hy3_status hy3_json_int(const json_t *object, const char *key, const char *where, int64_t low,
                        int64_t high, int64_t *out);
hy3_status hy3_json_int_or(const json_t *object, const char *key, const char *where, int64_t low,
                           int64_t high, int64_t initial, int64_t *out);
hy3_status hy3_json_real_or(const json_t *object, const char *key, const char *where,
                            double initial, double *out);
hy3_status hy3_json_bool_or(const json_t *object, const char *key, const char *where, bool initial,
                            bool *out);
/* *out stays owned by the document. */
hy3_status hy3_json_text(const json_t *object, const char *key, const char *where,
                         const char **out);
