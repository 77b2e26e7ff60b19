/* SPDX-License-Identifier: Apache-2.0 */
/* form.h - the forms in which other tools keep conversations, turned into the one that message.h
 * checks: alpaca, sharegpt and openai of LLaMA-Factory's dataset_info.json, and what APIs return.
 *
 * A form changes where a text stands and never the text. Keys it does not know stay in the line,
 * where message.h refuses or notes them. */
#pragma once

#include "base/error.h"
#include "text/reasoning.h"

enum hy3_form_kind { HY3_FORM_MESSAGES, HY3_FORM_ALPACA, HY3_FORM_SHAREGPT };

enum { HY3_FORM_NAME = 128 }; /* bytes of a column's or a tag's name */

struct hy3_form { /* zero: lines of "messages" as they are; a name "": there is none */
    enum hy3_form_kind kind;
    bool splits_think; /* a think block at the beginning of an answer is its reasoning */
    bool guesses;      /* the rest is found for each line by its keys: guess.h, first */
    char prompt[HY3_FORM_NAME], query[HY3_FORM_NAME], response[HY3_FORM_NAME];
    char history[HY3_FORM_NAME], system[HY3_FORM_NAME], tools[HY3_FORM_NAME];
    char messages[HY3_FORM_NAME];
    char role_tag[HY3_FORM_NAME], content_tag[HY3_FORM_NAME]; /* of a message: keys */
    char user_tag[HY3_FORM_NAME], assistant_tag[HY3_FORM_NAME], system_tag[HY3_FORM_NAME];
    char observation_tag[HY3_FORM_NAME], function_tag[HY3_FORM_NAME]; /* roles */
};

/* Local. Changes the line, an object, into {"messages": …}. names: of the tags of a think block.
 * Errors: HY3_EFORMAT, a text without file and line: a missing column, turns out of order …;
 * HY3_ENOMEM. */
hy3_status hy3_form_apply(const struct hy3_form *form, const struct hy3_reading *reading,
                          const struct hy3_dialect_names *names, json_t *line);
