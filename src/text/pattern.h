/* SPDX-License-Identifier: Apache-2.0 */
/* pattern.h - regular expressions of a tokenizer.json, written for Oniguruma (Ruby syntax), run by
 * PCRE2 with JIT.
 *
 * What the two read differently is rewritten; what cannot be rewritten is refused by name. Whether
 * code points newer than PCRE2's tables are letters is utf8.h's business (hy3_utf8_stand_in). */
#pragma once

#include "text/budget.h"

struct hy3_pattern; /* opaque */

/* Local. Compiles `source`; is_literal: a plain string. Errors: HY3_EFORMAT naming `where` and the
 * pattern. */
hy3_status hy3_pattern_create(const char *source, bool is_literal, const char *where,
                              struct hy3_pattern **out);
void hy3_pattern_free(struct hy3_pattern *pattern);

/* Local. The first match at or after `from`; *found is false if there is none. `text` is
 * well-formed UTF-8. Errors: HY3_EFORMAT naming the pattern, once the budget is spent. */
hy3_status hy3_pattern_find(struct hy3_pattern *pattern, const char *text, size_t size, size_t from,
                            struct hy3_budget *budget, bool *found, size_t *start, size_t *end);
