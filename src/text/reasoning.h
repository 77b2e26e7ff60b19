/* SPDX-License-Identifier: Apache-2.0 */
/* reasoning.h - the reasoning of the answers of a line: where it stands, which of it is learned,
 * and the effort that the line says. */
#pragma once

#include "base/error.h"
#include "text/dialect.h"

#include <jansson.h>

/* reasoning_effort of a line that has none: auto is high where an answer has reasoning, else
 * no_think; by form: auto for data whose think blocks are split off, else no_think. */
enum hy3_effort {
    HY3_EFFORT_BY_FORM,
    HY3_EFFORT_AUTO,
    HY3_EFFORT_NO_THINK,
    HY3_EFFORT_LOW,
    HY3_EFFORT_HIGH
};

struct hy3_reading { /* what is the same for all lines; zero: they are learned as they are */
    enum hy3_effort effort;
    bool without_reasoning; /* it is taken out, and every line is no_think */
    bool masks_history;     /* only the last turn of a line is learned */
    bool forgets_reasoning; /* that of answers before the last turn is taken out */
    bool ends_in_round;     /* the last turn: all behind the last question; else the last answer */
    bool masks_empty_think; /* a think block with nothing in it is not learned */
    const char *system;     /* system message of a line without one; NULL: none */
};

/* Local. The think block at the beginning of a text, with the dialect's tags or the plain ones: in
 * parts where its inside begins and ends, and where the rest begins. False: there is none. */
bool hy3_think_find(const struct hy3_dialect_names *names, const char *text, size_t size,
                    size_t parts[3]);

/* Local. Splits the reasoning off an answer that has none yet; nothing is trimmed. Errors:
 * HY3_ENOMEM. */
hy3_status hy3_reasoning_split(const struct hy3_dialect_names *names, json_t *message);

/* Local. Takes out of the line {"messages": messages} what is not learned, think blocks in the text
 * too, and sets its reasoning_effort. chat_template_kwargs of the line may say reasoning_effort,
 * and enable_thinking: false takes all reasoning out, true and null are the effort auto. Errors:
 * HY3_EFORMAT, a text without file and line; HY3_ENOMEM. */
hy3_status hy3_reasoning_settle(bool splits_think, const struct hy3_reading *reading,
                                const struct hy3_dialect_names *names, json_t *line,
                                json_t *messages);

/* Local. The place in "messages" from which answers are of the last turn. */
size_t hy3_reasoning_last_turn(const struct hy3_reading *reading, const json_t *messages);

/* Local. Whether an answer of the line, {"messages": …}, begins with a think block. */
bool hy3_think_is_text(const struct hy3_dialect_names *names, const json_t *line);
