/* SPDX-License-Identifier: Apache-2.0 */
/* portions.c - the cut of the files into pieces. */
#include "data/portions.h"

#include "base/memory.h"

static int64_t test_piece_bytes;

int64_t hy3_portions_piece_bytes(int64_t total)
{
    enum { PIECES = 1 << 16 };

    int64_t bytes = 1 << 20;

    if (test_piece_bytes > 0)
        return test_piece_bytes;
    while (bytes < total / PIECES)
        bytes *= 2;
    return bytes;
}

void hy3_portions_override(int64_t bytes)
{
    test_piece_bytes = bytes;
}

hy3_status hy3_portions_plan(const struct hy3_source *sources, int count, int64_t piece_bytes,
                             struct hy3_portion **out, int64_t *portions)
{
    hy3_status status = HY3_OK;
    struct hy3_portion *all = NULL;
    size_t capacity = 0, used = 0;
    int64_t before = 0;

    for (int f = 0; f < count; f++) {
        for (int64_t at = 0; at < sources[f].size; used++) {
            int64_t piece = (before + at) / piece_bytes;
            int64_t end = (piece + 1) * piece_bytes - before;

            HY3_TRY_DONE(hy3_grow(&all, &capacity, used + 1, sizeof *all));
            if (end > sources[f].size)
                end = sources[f].size;
            all[used] = (struct hy3_portion){.piece = piece, .begin = at, .end = end, .file = f};
            at = end;
        }
        before += sources[f].size;
    }
    *portions = (int64_t)used;
    *out = HY3_TAKE(all);
done:
    hy3_free(all);
    return status;
}
