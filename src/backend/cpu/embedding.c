/* SPDX-License-Identifier: Apache-2.0 */
/* embedding.c - rows of a table. */
#include "backend/cpu/cpu.h"

hy3_status hy3_cpu_embedding_forward(struct hy3_stream *s, const struct hy3_embedding *a)
{
    size_t row = (size_t)a->H * hy3_dtype_size(a->dtype);

    HY3_CHECK_INDICES(embedding, ids, a->T, 0, a->V);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < a->T; t++)
        memcpy((char *)a->y + (size_t)t * row, (const char *)a->W + (size_t)a->ids[t] * row, row);
    return HY3_OK;
}

/* A thread owns columns, so every row of dW is summed over its tokens in their order, whatever the
 * number of threads. */
hy3_status hy3_cpu_embedding_backward(struct hy3_stream *s, const struct hy3_embedding *a)
{
    enum { COLUMNS = 64 };

    HY3_CHECK_INDICES(embedding, ids, a->T, 0, a->V);
    int64_t strips = (a->H + COLUMNS - 1) / COLUMNS;

#pragma omp parallel for schedule(static)
    for (int64_t strip = 0; strip < strips; strip++) {
        int64_t first = strip * COLUMNS, n = a->H - first < COLUMNS ? a->H - first : COLUMNS;

        for (int64_t t = 0; t < a->T; t++) {
            float wide[COLUMNS];
            const float *dy = wide;

            if (a->dtype == HY3_FP32)
                dy = (const float *)a->dy + t * a->H + first;
            else
                hy3_cpu_loops->widen((const hy3_bf16 *)a->dy + t * a->H + first, wide, n);
            hy3_cpu_loops->axpy(dy, 1, a->dW + (int64_t)a->ids[t] * a->H + first, n);
        }
    }
    return HY3_OK;
}
