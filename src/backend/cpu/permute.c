/* SPDX-License-Identifier: Apache-2.0 */
/* permute.c - tokens to the rows of their experts and back. */
#include "backend/cpu/cpu.h"

hy3_status hy3_cpu_block_order(struct hy3_stream *s, const struct hy3_block_order *a)
{
    const int64_t *first = a->table, *second = first + a->blocks, *count = second + a->blocks;

    for (int64_t b = 0; b < a->blocks; b++) {
        for (int64_t i = 0; i < count[b]; i++) {
            a->token[second[b] + i] = (int32_t)(first[b] + i);
            a->position[first[b] + i] = (int32_t)(second[b] + i);
        }
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

    HY3_CHECK_INDICES(unpermute, position, a->T * a->k, 0, a->R);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < a->T; t++) {
        float sum[a->H], row[a->H], outs[a->H];
        float *out = hy3_cpu_row_for(a->out, a->dtype, t, a->H, outs);

        memset(sum, 0, sizeof sum);
        for (int64_t j = 0; j < a->k; j++)
            loops->axpy(hy3_cpu_row(a->y, a->dtype, a->position[t * a->k + j], a->H, row),
                        a->weights[t * a->k + j], sum, a->H);
        if (a->shared)
            loops->axpy(hy3_cpu_row(a->shared, a->dtype, t, a->H, row), 1, sum, a->H);
        if (a->dtype != HY3_FP32)
            hy3_cpu_row(a->out, a->dtype, t, a->H, outs);
        loops->axpy(sum, 1, out, a->H);
        hy3_cpu_row_put(a->out, a->dtype, t, a->H, out);
    }
    return HY3_OK;
}

hy3_status hy3_cpu_unpermute_backward(struct hy3_stream *s, const struct hy3_unpermute *a)
{
    const struct hy3_loops *loops = hy3_cpu_loops;

    HY3_CHECK_INDICES(unpermute, position, a->T * a->k, 0, a->R);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < a->T; t++) {
        float douts[a->H], row[a->H];
        const float *dout = hy3_cpu_row(a->dout, a->dtype, t, a->H, douts);

        for (int64_t j = 0; j < a->k; j++) {
            int64_t r = a->position[t * a->k + j];
            float *dy = hy3_cpu_row_for(a->dy, a->dtype, r, a->H, row);

            loops->scale(dout, a->weights[t * a->k + j], dy, a->H);
            hy3_cpu_row_put(a->dy, a->dtype, r, a->H, dy);
        }
    }
    return HY3_OK;
}
