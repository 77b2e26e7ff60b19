/* SPDX-License-Identifier: Apache-2.0 */
/* pretokenizer.h - cuts text into the words that byte pair encoding works on, by the
 * "pre_tokenizer" of a tokenizer.json.
 *
 * Known: Split (Regex or String, all behaviours, invert), Digits, Sequence, and ByteLevel at the
 * end. Each step sees each piece of the step before as a text of its own. */
#pragma once

#include "text/budget.h"
#include "text/piece.h"

#include <jansson.h>

struct hy3_pretokenizer; /* opaque */

/* Local. Errors: HY3_EFORMAT naming what is not known. */
hy3_status hy3_pretokenizer_create(const json_t *value, const char *where,
                                   struct hy3_pretokenizer **out);
void hy3_pretokenizer_free(struct hy3_pretokenizer *pretokenizer);

typedef hy3_status hy3_pretokenizer_emit(void *context, const char *word, size_t size);

/* Local. Calls `emit` for each word in order; words are never empty and borrowed until emit
 * returns. Takes from the budget. */
hy3_status hy3_pretokenizer_split(struct hy3_pretokenizer *pretokenizer, struct hy3_piece piece,
                                  struct hy3_budget *budget, hy3_pretokenizer_emit *emit,
                                  void *context);
