/* SPDX-License-Identifier: Apache-2.0 */
/* template.h - a conversation as the text the model was trained on, in both dialects of special
 * tokens.
 *
 * Equals the upstream chat template, see tests/golden/README.md. */
#pragma once

#include "text/contents.h"
#include "text/dialect.h"
#include "text/message.h"
#include "text/text.h"

struct hy3_turn {       /* an answer, in bytes of the rendered text */
    size_t first;       /* behind the assistant's marker: what is learned begins */
    size_t answer, end; /* behind its think block; behind its eos, where it has one */
    int64_t message;    /* from 1 */
    bool thinks;        /* the think block has more in it than white space */
};

struct hy3_turns { /* ascending; owned by the caller (hy3_free(items)) */
    struct hy3_turn *items;
    size_t count, capacity;
};

/* Zero is what training uses, but for is_training. */
struct hy3_template_options {
    bool is_training;           /* keep reasoning in every turn, close the last answer */
    bool add_generation_prompt; /* open an assistant turn at the end */
    bool raw_last_assistant;    /* last plain answer without think pair and eos */
    bool retry_tool_call;       /* fallback_strategy reasoning_toolcall_retry */
    int keep_thinking;          /* interleaved_ or preserved_thinking: 1, 0; -1: not given */
    struct hy3_turns *turns;    /* the answers are appended to them; NULL: nobody asks */
};

/* Local. Appends the rendered conversation. Tools and reasoning_effort are the conversation's own.
 * Errors: HY3_EFORMAT. */
hy3_status hy3_template_render(const struct hy3_conversation *conversation,
                               enum hy3_dialect dialect, const struct hy3_template_options *options,
                               struct hy3_text *out);

/* Local. The same; appends to *contents which bytes of `out` come from the line, whatever they look
 * like. */
hy3_status hy3_template_render_marked(const struct hy3_conversation *conversation,
                                      enum hy3_dialect dialect,
                                      const struct hy3_template_options *options,
                                      struct hy3_text *out, struct hy3_contents *contents);
