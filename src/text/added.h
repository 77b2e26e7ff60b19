/* SPDX-License-Identifier: Apache-2.0 */
/* added.h - finds the added tokens of a tokenizer.json in a text: the leftmost, of these the
 * longest.
 *
 * Tokens with "normalized" are looked for in what the others leave, as Hugging Face does even
 * without a normalizer. A match that does not count (single_word inside a word, a special token
 * read as text) still uses up its text. */
#pragma once

#include "text/budget.h"
#include "text/contents.h"
#include "text/piece.h"
#include "text/vocab.h"

#include <jansson.h>

struct hy3_added; /* opaque */

/* Local. Reads the list "added_tokens" and adds its tokens to `vocab`, which holds the model's,
 * `words` (token: id), and is kept until hy3_added_free. Ids are those that Hugging Face gives: the
 * model's own, else the next free one. */
hy3_status hy3_added_create(const json_t *list, const json_t *words, const char *where,
                            struct hy3_vocab *vocab, struct hy3_added **out);
void hy3_added_free(struct hy3_added *added);

/* Whether a token's text contains `part`. */
bool hy3_added_mention(const struct hy3_added *added, const char *part);

/* What is called for each stretch: id >= 0 is an added token, -1 a text between them (never
 * empty). */
typedef hy3_status hy3_added_emit(void *context, struct hy3_piece piece, int32_t id);

/* Which tokens are plain text. */
struct hy3_added_text {
    bool all; /* those flagged special; else control tokens where they are */
    const struct hy3_contents *contents; /* in one of these, also in part; NULL: nowhere */
    /* the first of those, and its place; id -1: there was none yet */
    int32_t id;
    size_t at;
};

/* Local. Cuts `whole` and calls `emit` in order; its first failure ends the cutting. The places of
 * *text count from the beginning of `whole`. Takes from the budget. Errors: HY3_EFORMAT naming an
 * added token, once the budget is spent. */
hy3_status hy3_added_cut(const struct hy3_added *added, struct hy3_piece whole,
                         struct hy3_added_text *text, struct hy3_budget *budget,
                         hy3_added_emit *emit, void *context);
