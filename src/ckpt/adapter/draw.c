/* SPDX-License-Identifier: Apache-2.0 */
/* draw.c - one random number an element of A. */
#include "ckpt/adapter/draw.h"

#include "base/memory.h"
#include "base/random.h"

#include <math.h>

enum { PIECE = 4 << 20 }; /* elements drawn at a time */

static void draw_piece(const struct hy3_param *p, uint64_t seed, struct hy3_span span, float *out)
{
    double bound = 1 / sqrt((double)p->shape[p->dims - 1]);
    uint64_t which = hy3_kind_place(p->layer, p->kind);
    uint32_t word[4];

    for (int64_t i = span.first; i < hy3_span_end(span); i++) {
        if (i == span.first || i % 4 == 0)
            hy3_random(seed, HY3_RANDOM_ADAPTER, which, (uint64_t)i / 4, word);
        out[i - span.first] = (float)(bound * (2 * (double)hy3_random_uniform(word[i % 4]) - 1));
    }
}

hy3_status hy3_adapter_draw(const struct hy3_params *params, uint64_t seed,
                            struct hy3_values values)
{
    hy3_status status = HY3_OK;
    float *piece = NULL;

    HY3_TRY_DONE(hy3_alloc(&piece, PIECE, sizeof *piece));
    for (int i = params->base_count; i < params->count; i++) {
        const struct hy3_param *p = &params->params[i];

        for (int64_t at = 0; at < p->held; at += PIECE) {
            struct hy3_span span = hy3_span_piece(hy3_param_held(p), at, PIECE);

            if (p->part == HY3_LORA_A)
                draw_piece(p, seed, span, piece);
            else
                memset(piece, 0, (size_t)span.count * sizeof *piece);
            HY3_TRY_DONE(values.put(values.of, HY3_MASTER, p, span, piece));
        }
    }
done:
    hy3_free(piece);
    return status;
}
