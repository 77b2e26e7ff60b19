/* SPDX-License-Identifier: Apache-2.0 */
/* merges.h - which two neighbouring ids become one, and in which order. */
#pragma once

#include "base/error.h"

#include <jansson.h>

struct hy3_merges; /* opaque */

/* Local. From the list "merges", pairs or "a b" texts, over the object `vocab` (token: id). Errors:
 * HY3_EFORMAT naming the first merge of which a part or the result is no token. */
hy3_status hy3_merges_create(const json_t *list, const json_t *vocab, const char *where,
                             struct hy3_merges **out);
void hy3_merges_free(struct hy3_merges *merges);

/* Local. Merges ids[0..*count) in place until no pair is left. O(n^2) with a tiny constant for
 * short words, else O(n log n). */
hy3_status hy3_merges_apply(struct hy3_merges *merges, int32_t *ids, size_t *count);
