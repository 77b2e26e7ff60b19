/* SPDX-License-Identifier: Apache-2.0 */
/* message.h - one line of a JSONL file as a conversation.
 *
 * {"messages": [{"role", "content", "reasoning_content", "tool_calls", "loss", "loss_weight"} …],
 * "reasoning_effort", "tools"}
 *
 * Nothing of a line is dropped in silence: it is read, refused, or named by
 * hy3_conversation_unread. */
#pragma once

#include "base/error.h"
#include "text/form.h"

#include <jansson.h>

struct hy3_conversation; /* opaque: a checked JSON document */

/* Local. Parses and checks `size` bytes of one line (no line end). Errors: HY3_EFORMAT, a text
 * without file and line (the caller knows them): not JSON, not UTF-8, a message without a role,
 * content that is no text, a message that says nothing, a key that is to change what is learned …
 * The caller owns *out (hy3_conversation_free). */
hy3_status hy3_conversation_parse(const char *line, size_t size, struct hy3_conversation **out);

/* Local. The same of a line in another form, whose think blocks have the tags of `names`. Of
 * `reading` nothing is read that is about labels. */
hy3_status hy3_conversation_parse_form(const char *line, size_t size, const struct hy3_form *form,
                                       const struct hy3_reading *reading,
                                       const struct hy3_dialect_names *names,
                                       struct hy3_conversation **out);
void hy3_conversation_free(struct hy3_conversation *conversation);

/* Local. A conversation of one user message, for generation. */
hy3_status hy3_conversation_prompt(const char *prompt, struct hy3_conversation **out);

/* The document, borrowed: read by template.c. */
const json_t *hy3_conversation_json(const struct hy3_conversation *conversation);

/* The keys that are not read, as the keys of an object: "messages[].name". Borrowed. */
json_t *hy3_conversation_unread(const struct hy3_conversation *conversation);

/* Whether an answer has another weight than 1. */
bool hy3_conversation_is_weighted(const struct hy3_conversation *conversation);

/* The weight of the loss of a message, from 1: of an answer without "loss" and "loss_weight" (also
 * "weight"), and of all others, 1. */
float hy3_conversation_weight(const struct hy3_conversation *conversation, int64_t message);

/* Messages whose content is null and that say nothing else: rendered as an empty text. */
int64_t hy3_conversation_null_contents(const struct hy3_conversation *conversation);
