/* SPDX-License-Identifier: Apache-2.0 */
/* vocab.h - the bytes of each id, from the vocabulary and the added tokens of a tokenizer.json. */
#pragma once

#include "base/error.h"

enum {
    HY3_ID_MAX = (1 << 22) - 1
}; /* bounds the tables; the largest published vocabularies have 2^18 ids */

struct hy3_token {
    size_t at; /* in vocab->bytes */
    uint32_t size;
    bool is_present, is_special;
    bool is_control; /* flagged special, or one of a turn's tokens */
    bool is_bytes;   /* all its characters stand for bytes (those are kept), else its own UTF-8 */
};

struct hy3_vocab {
    char *bytes;
    size_t bytes_used, bytes_capacity;
    struct hy3_token *tokens; /* [count] by id, some absent */
    size_t count, capacity;
};

/* Local. Errors: HY3_EFORMAT if the id is taken. */
hy3_status hy3_vocab_add(struct hy3_vocab *vocab, int32_t id, const char *text, const char *where);

void hy3_vocab_release(struct hy3_vocab *vocab);
