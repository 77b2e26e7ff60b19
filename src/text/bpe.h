/* SPDX-License-Identifier: Apache-2.0 */
/* bpe.h - byte pair encoding of one pre-token: the pair of lowest rank is merged first, the
 * leftmost of equals.
 *
 * Short words are cached; long ones are merged through a heap in O(n log n). */
#pragma once

#include "text/ids.h"
#include "text/vocab.h"

#include <jansson.h>

struct hy3_bpe; /* opaque */

/* Local. Reads the "model" of a tokenizer.json and adds its tokens to `vocab`, which is kept until
 * hy3_bpe_free. Errors: HY3_EFORMAT. */
hy3_status hy3_bpe_create(const json_t *model, const char *where, struct hy3_vocab *vocab,
                          struct hy3_bpe **out);
void hy3_bpe_free(struct hy3_bpe *bpe);

/* Local. Appends the ids of one pre-token. */
hy3_status hy3_bpe_encode(struct hy3_bpe *bpe, const char *word, size_t size, struct hy3_ids *ids);
