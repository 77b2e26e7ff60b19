/* SPDX-License-Identifier: Apache-2.0 */
/* tokenizer.h - byte-level BPE as Hugging Face tokenizers runs it on a tokenizer.json.
 *
 * Added tokens are cut out first (their flags single_word, lstrip, rstrip, normalized, special),
 * the rest is split by the pre-tokenizer's patterns (PCRE2 with JIT), mapped to bytes and merged by
 * rank. Reads no other files. One tokenizer may be used by one thread at a time. */
#pragma once

#include "base/error.h"
#include "text/contents.h"
#include "text/dialect.h"
#include "text/ids.h"

struct hy3_tokenizer; /* opaque */

/* The ids a conversation needs; each is one token or the opening fails. */
struct hy3_specials {
    int32_t bos, eos, pad, user, assistant;
};

/* Local. Reads tokenizer.json and tokenizer_config.json of `directory`. Errors: HY3_EIO,
 * HY3_EFORMAT naming file and key. The caller owns *out (hy3_tokenizer_close). */
hy3_status hy3_tokenizer_open(const char *directory, struct hy3_tokenizer **out);

/* Local. From the bytes of a tokenizer.json alone, without specials or dialect (tests, fuzzing). */
hy3_status hy3_tokenizer_parse(const char *text, size_t size, const char *where,
                               struct hy3_tokenizer **out);
void hy3_tokenizer_close(struct hy3_tokenizer *tokenizer);

/* Local. Appends the ids of `text`, `size` bytes of UTF-8. specials_as_text: added tokens flagged
 * special are plain text (what encode_special_tokens does); others are recognised all the same. */
hy3_status hy3_tokenizer_encode(struct hy3_tokenizer *tokenizer, const char *text, size_t size,
                                bool specials_as_text, struct hy3_ids *ids);

/* Local. The ids of a rendered text. Control tokens (flagged special, or in struct hy3_specials)
 * are recognised where the template wrote them, never in `contents`: nothing that a line says
 * becomes the end of a turn or another role. *found: the first token that a content looks like, -1:
 * there is none; *at: its place. */
hy3_status hy3_tokenizer_encode_rendered(struct hy3_tokenizer *tokenizer, const char *text,
                                         size_t size, const struct hy3_contents *contents,
                                         struct hy3_ids *ids, int32_t *found, size_t *at);

/* Local. The text of ids, with U+FFFD for broken UTF-8 as Python's "replace" gives it; skip_special
 * leaves out tokens flagged special. *text ends in a NUL beyond *size; the caller owns it
 * (hy3_free). Errors: HY3_EFORMAT for an id out of range. */
hy3_status hy3_tokenizer_decode(struct hy3_tokenizer *tokenizer, const int32_t *ids, size_t count,
                                bool skip_special, char **text, size_t *size);

/* Local. The bytes of one id as they stand in the vocabulary, before UTF-8 repair, for printing
 * token by token. Borrowed. */
hy3_status hy3_tokenizer_bytes(struct hy3_tokenizer *tokenizer, int32_t id, const char **bytes,
                               size_t *size);

enum hy3_dialect hy3_tokenizer_dialect(const struct hy3_tokenizer *tokenizer);
const struct hy3_specials *hy3_tokenizer_specials(const struct hy3_tokenizer *tokenizer);

/* One more than the largest id. */
int64_t hy3_tokenizer_size(const struct hy3_tokenizer *tokenizer);

/* 64-bit xxh3 of the files it was read from. */
uint64_t hy3_tokenizer_fingerprint(const struct hy3_tokenizer *tokenizer);
