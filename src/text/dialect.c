/* SPDX-License-Identifier: Apache-2.0 */
/* dialect.c - the names of the tokens. */
#include "text/dialect.h"

const struct hy3_dialect_names *hy3_dialect_names(enum hy3_dialect dialect)
{
    static const struct hy3_dialect_names preview = {
        .bos = "<｜hy_begin▁of▁sentence｜>",
        .eos = "<｜hy_eos｜>",
        .pad = "<｜hy_▁pad▁｜>",
        .user = "<｜hy_User｜>",
        .assistant = "<｜hy_Assistant｜>",
        .mode = "<｜reasoning_mode｜>",
        .think = "<think>",
        .end_think = "</think>",
        .suffix = "",
    };
    static const struct hy3_dialect_names final = {
        .bos = "<｜hy_begin_of_sentence:opensource｜>",
        .eos = "<｜hy_eos:opensource｜>",
        .pad = "<｜hy_pad:opensource｜>",
        .user = "<｜hy_User:opensource｜>",
        .assistant = "<｜hy_Assistant:opensource｜>",
        .mode = "<｜reasoning_mode:opensource｜>",
        .think = "<think:opensource>",
        .end_think = "</think:opensource>",
        .suffix = ":opensource",
    };

    return dialect == HY3_DIALECT_FINAL ? &final : &preview;
}
