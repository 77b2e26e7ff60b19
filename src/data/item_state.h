/* SPDX-License-Identifier: Apache-2.0 */
/* item_state.h - where in JSON a byte stands: by strings and brackets alone. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct hy3_item_state { /* before a byte of the file */
    int64_t depth;      /* open brackets */
    bool is_inside;     /* of a string */
    bool is_escaped;    /* a backslash stands before the byte, in a string */
};

/* Advances the state over one byte. */
static inline void hy3_item_step(struct hy3_item_state *s, char c)
{
    if (s->is_inside) {
        if (s->is_escaped)
            s->is_escaped = false;
        else if (c == '\\')
            s->is_escaped = true;
        else if (c == '"')
            s->is_inside = false;
    } else if (c == '"') {
        s->is_inside = true;
    } else if (c == '{' || c == '[') {
        s->depth++;
    } else if (c == '}' || c == ']') {
        s->depth--;
    }
}
