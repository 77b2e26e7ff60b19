/* SPDX-License-Identifier: Apache-2.0 */
/* vocab.c - the bytes of each id. */
#include "text/vocab.h"

#include "base/memory.h"
#include "text/utf8.h"

hy3_status hy3_vocab_add(struct hy3_vocab *vocab, int32_t id, const char *text, const char *where)
{
    size_t size = strlen(text), bytes = 0, need = (size_t)id + 1;
    struct hy3_token *token;

    if (size > UINT32_MAX)
        HY3_FAIL(HY3_EFORMAT, "%s: a token of %zu bytes is too long", where, size);
    HY3_TRY(hy3_grow(&vocab->tokens, &vocab->capacity, need, sizeof *vocab->tokens));
    vocab->count = need > vocab->count ? need : vocab->count;
    token = &vocab->tokens[id];
    if (token->is_present)
        HY3_FAIL(HY3_EFORMAT, "%s: the token '%.60s' has the id %d of another token", where, text,
                 id);
    HY3_TRY(hy3_grow(&vocab->bytes, &vocab->bytes_capacity, vocab->bytes_used + size + 1, 1));
    token->at = vocab->bytes_used;
    token->is_present = true;
    token->is_bytes = hy3_chars_to_bytes(text, size, vocab->bytes + token->at, &bytes);
    if (!token->is_bytes) {
        memcpy(vocab->bytes + token->at, text, size);
        bytes = size;
    }
    token->size = (uint32_t)bytes;
    vocab->bytes_used += bytes;
    return HY3_OK;
}

void hy3_vocab_release(struct hy3_vocab *vocab)
{
    hy3_free(vocab->bytes);
    hy3_free(vocab->tokens);
    memset(vocab, 0, sizeof *vocab);
}
