/* SPDX-License-Identifier: Apache-2.0 */
/* scaled.c - 8-bit weights with scales, from and to those of the computation. */
#include "backend/cpu/cpu.h"

#include <float.h>

hy3_status hy3_cpu_expand(struct hy3_stream *s, const struct hy3_expand *a)
{
    int64_t across = hy3_blocks(a->K, a->columns);

#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < a->M * a->N; row++) {
        const float *scales = a->scales + row / a->N * a->stride + row % a->N / a->rows * across;
        float ys[a->K];
        float *y = hy3_cpu_row_for(a->y, a->dtype, row, a->K, ys);

        for (int64_t b = 0; b < across; b++) {
            int64_t at = b * a->columns, rest = a->K - at;

            hy3_cpu_loops->expand(a->x + row * a->K + at, scales[b], y + at,
                                  rest < a->columns ? rest : a->columns);
        }
        hy3_cpu_row_put(a->y, a->dtype, row, a->K, y);
    }
    return HY3_OK;
}

/* The scales of the blocks that begin at a row. */
static void find_scales(const struct hy3_quantize *a, int64_t first, int64_t end, float *scales)
{
    int64_t across = hy3_blocks(a->K, a->columns);

    memset(scales, 0, (size_t)across * sizeof *scales);
    for (int64_t row = first; row < end; row++) {
        float xs[a->K];
        const float *x = hy3_cpu_row(a->x, a->dtype, row, a->K, xs);

        for (int64_t b = 0; b < across; b++) {
            int64_t at = b * a->columns, rest = a->K - at;
            float most = hy3_cpu_loops->magnitude(x + at, rest < a->columns ? rest : a->columns);

            scales[b] = most > scales[b] ? most : scales[b];
        }
    }
    for (int64_t b = 0; b < across; b++) {
        float scale = scales[b] / 448;

        scales[b] = scales[b] == 0 ? 1 : scale < FLT_MIN ? FLT_MIN : scale;
    }
}

hy3_status hy3_cpu_quantize(struct hy3_stream *s, const struct hy3_quantize *a)
{
    int64_t across = hy3_blocks(a->K, a->columns);

#pragma omp parallel for schedule(static)
    for (int64_t block = 0; block < hy3_blocks(a->N, a->rows); block++) {
        int64_t first = block * a->rows;
        int64_t end = a->N - first < a->rows ? a->N : first + a->rows;
        float *scales = a->scales + block * across;

        find_scales(a, first, end, scales);
        for (int64_t row = first; row < end; row++) {
            float xs[a->K];
            const float *x = hy3_cpu_row(a->x, a->dtype, row, a->K, xs);

            for (int64_t b = 0; b < across; b++) {
                int64_t at = b * a->columns, rest = a->K - at;

                hy3_cpu_loops->quantize(x + at, scales[b], a->y + row * a->K + at,
                                        rest < a->columns ? rest : a->columns);
            }
        }
    }
    return HY3_OK;
}
