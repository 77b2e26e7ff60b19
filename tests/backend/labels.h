/* SPDX-License-Identifier: Apache-2.0 */
/* labels.h - the part of reference.c that orders routed rows and their labels. */
#pragma once

#include "backend/kernels.h"

static hy3_status route_index(struct hy3_stream *s, const struct hy3_route_index *a)
{
    int64_t row = 0;

    for (int64_t g = 0; g < a->G; g++) {
        a->starts[g] = row;
        for (int64_t i = 0; i < a->T * a->k; i++) {
            const int32_t *id = a->ids + i * a->stride;
            bool again = i % a->k > 0 && id[-a->stride] / a->width == g;

            if (*id < 0)
                a->position[i] = -1;
            if (*id < 0 || *id / a->width != g)
                continue;
            a->position[i] = again ? -1 : (int32_t)row;
            if (!again)
                a->token[row++] = (int32_t)(i / a->k);
        }
    }
    a->starts[a->G] = row;
    return HY3_OK;
}

static hy3_status label(struct hy3_stream *s, const struct hy3_label *a)
{
    for (int64_t i = 0, first = 0; i < a->T * a->k; i++) {
        first = a->parcel[i] < 0 ? first : i;
        a->slot[i] = (int32_t)(a->parcel[first] * a->width + i - first);
        a->labels[a->slot[i]] =
            (struct hy3_row_label){(int32_t)(a->ids[i] % a->held * a->sources + a->source),
                                   (int32_t)(a->position[i] - a->starts[a->ids[i]]), a->weights[i]};
        for (int64_t n = i - first + 1; n < a->width; n++)
            a->labels[a->parcel[first] * a->width + n] = (struct hy3_row_label){-1, 0, 0};
    }
    return HY3_OK;
}

static hy3_status relabel(struct hy3_stream *s, const struct hy3_relabel *a)
{
    for (int64_t i = 0, first = 0; i < a->T * a->k; i++) {
        a->slot[i] = 0;
        if (a->came[i].block < 0)
            continue;
        first = a->parcel[i] < 0 ? first : i;
        a->slot[i] = (int32_t)(a->parcel[first] * a->width + i - first);
        a->labels[a->slot[i]] = a->came[i];
        a->labels[a->slot[i]].block %= (int32_t)a->blocks;
        for (int64_t n = i - first + 1; n < a->width; n++)
            a->labels[a->parcel[first] * a->width + n] = (struct hy3_row_label){-1, 0, 0};
    }
    return HY3_OK;
}

static hy3_status unlabel(struct hy3_stream *s, const struct hy3_unlabel *a)
{
    for (int64_t i = 0; i < a->N * a->k; i++) {
        const struct hy3_row_label *l = &a->labels[i];
        int64_t row = l->block < 0 ? -1 : a->first[l->block] + l->place;

        a->position[i] = (int32_t)row;
        a->weights[i] = row < 0 ? 0 : l->weight;
        if (row < 0)
            continue;
        a->token[row] = (int32_t)(i / a->k);
        a->slot[row] = (int32_t)i;
    }
    return HY3_OK;
}
