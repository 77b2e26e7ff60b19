/* SPDX-License-Identifier: Apache-2.0 */
/* permute.c - tokens to the rows of their experts and back. */
#include "backend/cpu/cpu.h"

/* The labels of a token's parcels, one parcel after the other. */
struct filling {
    int64_t slot, end; /* the next label, the end of its parcel's */
};

/* What is left of a parcel is empty. */
static void close_parcel(struct hy3_row_label *labels, struct filling *f)
{
    while (f->slot < f->end)
        labels[f->slot++] = (struct hy3_row_label){.block = -1};
}

/* parcel: -1, that of the label before. The number of the label. */
static int32_t put_label(struct hy3_row_label *labels, int64_t width, int32_t parcel,
                         struct hy3_row_label label, struct filling *f)
{
    if (parcel >= 0) {
        close_parcel(labels, f);
        f->slot = parcel * width;
        f->end = f->slot + width;
    }
    labels[f->slot] = label;
    return (int32_t)f->slot++;
}

hy3_status hy3_cpu_label(struct hy3_stream *s, const struct hy3_label *a)
{
    for (int64_t t = 0; t < a->T; t++) {
        struct filling f = {0, 0};

        for (int64_t i = t * a->k; i < (t + 1) * a->k; i++) {
            const struct hy3_row_label label = {
                .block = (int32_t)(a->ids[i] % a->held * a->sources + a->source),
                .place = (int32_t)(a->position[i] - a->starts[a->ids[i]]),
                .weight = a->weights[i]};

            a->slot[i] = put_label(a->labels, a->width, a->parcel[i], label, &f);
        }
        close_parcel(a->labels, &f);
    }
    return HY3_OK;
}

hy3_status hy3_cpu_relabel(struct hy3_stream *s, const struct hy3_relabel *a)
{
    for (int64_t t = 0; t < a->T; t++) {
        struct filling f = {0, 0};

        for (int64_t i = t * a->k; i < (t + 1) * a->k; i++) {
            struct hy3_row_label label = a->came[i];

            a->slot[i] = 0;
            if (label.block < 0)
                continue;
            label.block %= (int32_t)a->blocks;
            a->slot[i] = put_label(a->labels, a->width, a->parcel[i], label, &f);
        }
        close_parcel(a->labels, &f);
    }
    return HY3_OK;
}

hy3_status hy3_cpu_unlabel(struct hy3_stream *s, const struct hy3_unlabel *a)
{
    for (int64_t i = 0; i < a->N * a->k; i++) {
        const struct hy3_row_label *label = &a->labels[i];
        bool is_empty = label->block < 0;

        a->position[i] = is_empty ? -1 : (int32_t)(a->first[label->block] + label->place);
        a->weights[i] = is_empty ? 0 : label->weight;
    }
    HY3_CHECK_INDICES(unlabel, position, a->N * a->k, -1, a->R);
    for (int64_t i = 0; i < a->N * a->k; i++) {
        if (a->position[i] < 0)
            continue;
        a->token[a->position[i]] = (int32_t)(i / a->k);
        a->slot[a->position[i]] = (int32_t)i;
    }
    return HY3_OK;
}

hy3_status hy3_cpu_permute_forward(struct hy3_stream *s, const struct hy3_permute *a)
{
    size_t row = (size_t)a->H * hy3_dtype_size(a->dtype);

    HY3_CHECK_INDICES(permute, token, a->R, 0, a->T);
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < a->R; r++)
        memcpy((char *)a->y + (size_t)r * row, (const char *)a->x + (size_t)a->token[r] * row, row);
    return HY3_OK;
}

hy3_status hy3_cpu_permute_backward(struct hy3_stream *s, const struct hy3_permute *a)
{
    HY3_CHECK_INDICES(permute, position, a->T * a->k, -1, a->R);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < a->T; t++) {
        float dxs[a->H], dys[a->H];
        float *dx = hy3_cpu_row_for(a->dx, a->dtype, t, a->H, dxs);

        if (!a->accumulate)
            memset(dx, 0, (size_t)a->H * sizeof *dx);
        else if (a->dtype != HY3_FP32)
            hy3_cpu_row(a->dx, a->dtype, t, a->H, dxs);
        for (int64_t j = 0; j < a->k; j++) {
            int64_t r = a->position[t * a->k + j];

            if (r >= 0)
                hy3_cpu_loops->axpy(hy3_cpu_row(a->dy, a->dtype, r, a->H, dys), 1, dx, a->H);
        }
        hy3_cpu_row_put(a->dx, a->dtype, t, a->H, dx);
    }
    return HY3_OK;
}

hy3_status hy3_cpu_unpermute_forward(struct hy3_stream *s, const struct hy3_unpermute *a)
{
    const struct hy3_loops *loops = hy3_cpu_loops;

    HY3_CHECK_INDICES(unpermute, position, a->T * a->k, -1, a->R);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < a->T; t++) {
        float sum[a->H], row[a->H], outs[a->H];
        float *out = hy3_cpu_row_for(a->out, a->dtype, t, a->H, outs);

        memset(sum, 0, sizeof sum);
        for (int64_t i = t * a->k; i < (t + 1) * a->k; i++)
            if (a->position[i] >= 0)
                loops->axpy(hy3_cpu_row(a->y, a->dtype, a->position[i], a->H, row),
                            a->weights ? a->weights[i] : 1, sum, a->H);
        if (a->shared)
            loops->axpy(hy3_cpu_row(a->shared, a->dtype, t, a->H, row), 1, sum, a->H);
        if (!a->accumulate)
            memset(out, 0, (size_t)a->H * sizeof *out);
        else if (a->dtype != HY3_FP32)
            hy3_cpu_row(a->out, a->dtype, t, a->H, outs);
        loops->axpy(sum, 1, out, a->H);
        hy3_cpu_row_put(a->out, a->dtype, t, a->H, out);
    }
    return HY3_OK;
}

hy3_status hy3_cpu_unpermute_backward(struct hy3_stream *s, const struct hy3_unpermute *a)
{
    const struct hy3_loops *loops = hy3_cpu_loops;

    HY3_CHECK_INDICES(unpermute, position, a->T * a->k, -1, a->R);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < a->T; t++) {
        float douts[a->H], row[a->H];
        const float *dout = hy3_cpu_row(a->dout, a->dtype, t, a->H, douts);

        for (int64_t i = t * a->k; i < (t + 1) * a->k; i++) {
            int64_t r = a->position[i];
            float *dy;

            if (r < 0)
                continue;
            dy = hy3_cpu_row_for(a->dy, a->dtype, r, a->H, row);
            loops->scale(dout, a->weights ? a->weights[i] : 1, dy, a->H);
            hy3_cpu_row_put(a->dy, a->dtype, r, a->H, dy);
        }
    }
    return HY3_OK;
}
