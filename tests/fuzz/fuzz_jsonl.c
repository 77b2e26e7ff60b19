/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz_jsonl.c - any bytes as one line: read, render in both dialects and every option, with the
 * marks of what is the line's own; and as the beginning of a file. */
#include "../text/forms.h"
#include "base/memory.h"
#include "data/kind.h"
#include "text/labels.h"
#include "text/template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* They ascend, none is empty or beyond the text, and each is found by its bytes. */
static void check_contents(const struct hy3_contents *contents, size_t size)
{
    size_t end = 0;

    for (size_t i = 0; i < contents->count; i++) {
        const struct hy3_content *c = &contents->items[i];

        if (c->first < end || c->end <= c->first || c->end > size ||
            hy3_contents_find(contents, c->end - 1, c->end) != c)
            HY3_BUG("content %zu is misplaced", i);
        end = c->end;
    }
}

/* They ascend inside the text, and each has a message with a weight. */
static void check_turns(const struct hy3_conversation *conversation, const struct hy3_turns *turns,
                        size_t size)
{
    size_t end = 0;

    for (size_t i = 0; i < turns->count; i++) {
        const struct hy3_turn *t = &turns->items[i];
        float weight = hy3_conversation_weight(conversation, t->message);

        if (t->first < end || t->answer < t->first || t->end < t->answer || t->end > size ||
            !(weight >= 0 && weight <= HY3_WEIGHT_MAX))
            HY3_BUG("answer %zu is misplaced", i);
        end = t->end;
    }
}

static void render(const struct hy3_conversation *conversation, int options)
{
    struct hy3_template_options chosen = {
        .is_training = options & 1,
        .add_generation_prompt = options & 2,
        .raw_last_assistant = options & 4,
        .retry_tool_call = options & 8,
        .keep_thinking = (options >> 4) - 1,
    };
    struct hy3_contents contents = {0};
    struct hy3_turns turns = {0};
    struct hy3_text text = {0};

    for (int dialect = 0; dialect < 2; dialect++) {
        text.size = contents.count = turns.count = 0;
        chosen.turns = &turns;
        if (hy3_template_render_marked(conversation, (enum hy3_dialect)dialect, &chosen, &text,
                                       &contents) != HY3_OK)
            HY3_BUG("a checked conversation does not render: %s", hy3_error_text());
        check_contents(&contents, text.size);
        check_turns(conversation, &turns, text.size);
    }
    hy3_free(contents.items);
    hy3_free(turns.items);
    hy3_free(text.data);
}

/* As a line of the forms of LLaMA-Factory and ms-swift. */
static void read_forms(const char *line, size_t size)
{
    static const struct hy3_form others[] = {
        {.kind = HY3_FORM_SHAREGPT,
         .splits_think = true,
         .messages = "messages",
         .system = "system",
         .tools = "tools",
         .role_tag = "role",
         .content_tag = "content",
         .user_tag = "user",
         .assistant_tag = "assistant",
         .observation_tag = "tool",
         .function_tag = "function_call",
         .system_tag = "system"},
        {.splits_think = true},
        {.splits_think = true, .guesses = true},
    };
    static const struct hy3_reading readings[] = {
        {.effort = HY3_EFFORT_AUTO, .system = "Be brief."},
        {0},
        {.without_reasoning = true},
        {.forgets_reasoning = true, .ends_in_round = true}};
    struct hy3_conversation *conversation;

    for (size_t i = 0; i < sizeof readings / sizeof *readings; i++) {
        if (hy3_conversation_parse_form(line, size, i == 0 ? &alpaca : &others[i - 1], &readings[i],
                                        hy3_dialect_names(HY3_DIALECT_FINAL),
                                        &conversation) != HY3_OK)
            continue;
        render(conversation, 0);
        hy3_conversation_free(conversation);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hy3_conversation *conversation;
    enum hy3_data_layout layout;

    hy3_kind_check("fuzz", (const char *)data, size, &layout);
    read_forms((const char *)data, size);
    if (hy3_conversation_parse((const char *)data, size, &conversation) != HY3_OK)
        return 0;
    for (int options = 0; options < 48; options++)
        render(conversation, options);
    hy3_conversation_free(conversation);
    return 0;
}
