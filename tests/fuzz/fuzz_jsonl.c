/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_jsonl.c - any bytes as one line: read, render in both dialects and every option, mark
 * labels. */
#include "base/memory.h"
#include "text/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void render(const struct hy3_conversation *conversation, int options)
{
    const struct hy3_template_options chosen = {
        .is_training = options & 1,
        .add_generation_prompt = options & 2,
        .raw_last_assistant = options & 4,
        .retry_tool_call = options & 8,
        .keep_thinking = (options >> 4) - 1,
    };
    struct hy3_text text = {0};

    for (int dialect = 0; dialect < 2; dialect++) {
        text.size = 0;
        if (hy3_template_render(conversation, (enum hy3_dialect)dialect, &chosen, &text) != HY3_OK)
            HY3_BUG("a checked conversation does not render: %s", hy3_error_text());
    }
    hy3_free(text.data);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hy3_conversation *conversation;

    if (hy3_conversation_parse((const char *)data, size, &conversation) != HY3_OK)
        return 0;
    for (int options = 0; options < 48; options++)
        render(conversation, options);
    hy3_conversation_free(conversation);
    return 0;
}
