/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_tokenizer.c - any bytes as a tokenizer.json; what opens must encode and decode some
 * texts. */
#include "base/log.h"
#include "base/memory.h"
#include "text/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void round_trip(struct hy3_tokenizer *tokenizer, const char *text, size_t size)
{
    struct hy3_ids ids = {0};
    char *decoded = NULL;
    size_t decoded_size;

    for (int as_text = 0; as_text < 2; as_text++) {
        ids.count = 0;
        if (hy3_tokenizer_encode(tokenizer, text, size, as_text, &ids) != HY3_OK)
            continue;
        if (hy3_tokenizer_decode(tokenizer, ids.data, ids.count, as_text, &decoded,
                                 &decoded_size) != HY3_OK)
            HY3_BUG("own ids do not decode: %s", hy3_error_text());
        hy3_free(decoded);
    }
    hy3_free(ids.data);
}

/* With every second byte a line's own: what is no control token then is text, and decodes. */
static void encode_rendered(struct hy3_tokenizer *tokenizer, const char *text, size_t size)
{
    struct hy3_content items[200];
    struct hy3_contents contents = {.items = items};
    struct hy3_ids ids = {0};
    char *decoded = NULL;
    size_t at, decoded_size;
    int32_t found;

    for (; contents.count < 200 && 2 * contents.count < size; contents.count++)
        items[contents.count] = (struct hy3_content){2 * contents.count, 2 * contents.count + 1, 1};
    if (hy3_tokenizer_encode_rendered(tokenizer, text, size, &contents, &ids, &found, &at) ==
        HY3_OK) {
        if (hy3_tokenizer_decode(tokenizer, ids.data, ids.count, false, &decoded, &decoded_size) !=
            HY3_OK)
            HY3_BUG("own ids do not decode: %s", hy3_error_text());
        if (found >= 0 && !hy3_contents_find(&contents, at, at + 1))
            HY3_BUG("a token is not where it was found");
        hy3_free(decoded);
    }
    hy3_free(ids.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char mixed[] =
        " Hello, the  world's 12345 <think>\n\n\u4f60\u597d\r\n e\u0301 \u2603"
        " \U0001f44d\U0001f3fd \U00013460aaaaaaaa_-\0\x7f\xc2\x85";
    struct hy3_tokenizer *tokenizer;
    char same[200];

    hy3_log_start("fuzz", false);
    if (hy3_tokenizer_parse((const char *)data, size, "fuzz", &tokenizer) != HY3_OK)
        return 0;
    round_trip(tokenizer, mixed, sizeof mixed - 1);
    encode_rendered(tokenizer, mixed, sizeof mixed - 1);
    memset(same, 'a', sizeof same);
    round_trip(tokenizer, same, sizeof same);
    round_trip(tokenizer, (const char *)data, size < 300 ? size : 300);
    hy3_tokenizer_close(tokenizer);
    return 0;
}
