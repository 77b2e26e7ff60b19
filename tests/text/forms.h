/* SPDX-License-Identifier: Apache-2.0 */
/* forms.h - LLaMA-Factory's forms of a line, with the names it has where none are given. */
#pragma once

#include "text/form.h"

static const struct hy3_form alpaca = {.kind = HY3_FORM_ALPACA,
                                       .splits_think = true,
                                       .prompt = "instruction",
                                       .query = "input",
                                       .response = "output",
                                       .history = "history",
                                       .system = "system",
                                       .tools = "tools"};
static const struct hy3_form sharegpt = {.kind = HY3_FORM_SHAREGPT,
                                         .splits_think = true,
                                         .messages = "conversations",
                                         .system = "system",
                                         .tools = "tools",
                                         .role_tag = "from",
                                         .content_tag = "value",
                                         .user_tag = "human",
                                         .assistant_tag = "gpt",
                                         .observation_tag = "observation",
                                         .function_tag = "function_call",
                                         .system_tag = "system"};
