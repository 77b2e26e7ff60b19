/* SPDX-License-Identifier: Apache-2.0 */
/* syntax.h - what is wrong with a line that libconfig cannot read. */
#pragma once

#include "base/error.h"

enum { HY3_SYNTAX_MAX = 400 }; /* bytes that any explanation fits into */

/* Local. Why `text` is no libconfig, in `why`: the line and what to write instead. line: the one
 * where the reader stopped; changed to the one that is at fault. */
void hy3_syntax_explain(const char *text, int *line, char *why, size_t size);

/* Local. The key and value of the line (from 1) of `text`, "" where there is none; for messages. */
void hy3_syntax_pair(const char *text, int line, char *key, size_t key_size, char *value,
                     size_t value_size);

/* Local. The line before `line` that begins with `key`, 0: there is none. */
int hy3_syntax_earlier(const char *text, int line, const char *key);
