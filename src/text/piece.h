/* SPDX-License-Identifier: Apache-2.0 */
/* piece.h - a stretch of text on its way from the whole to the pre-token. */
#pragma once

#include "base/error.h"

struct hy3_piece {
    const char *text;  /* what is encoded */
    const char *shape; /* what patterns see: `text`, or a copy with stand-ins (hy3_utf8_stand_in) */
    size_t size;
};

static inline struct hy3_piece hy3_piece_part(struct hy3_piece whole, size_t start, size_t end)
{
    return (struct hy3_piece){whole.text + start, whole.shape + start, end - start};
}
