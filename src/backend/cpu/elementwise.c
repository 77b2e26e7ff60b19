/* SPDX-License-Identifier: Apache-2.0 */
/* elementwise.c - casts, sums, dropout, noise, sums of squares. */
#include "backend/cpu/cpu.h"
#include "base/random.h"

enum { PIECE = 4096 };

static const void *at(const void *array, hy3_dtype dtype, int64_t i)
{
    return (const char *)array + (size_t)i * hy3_dtype_size(dtype);
}

static void *at_mutable(void *array, hy3_dtype dtype, int64_t i)
{
    return (char *)array + (size_t)i * hy3_dtype_size(dtype);
}

hy3_status hy3_cpu_cast(struct hy3_stream *s, const struct hy3_cast *a)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < a->n; i += PIECE) {
        int64_t n = a->n - i < PIECE ? a->n - i : PIECE;
        const void *x = at(a->x, a->x_dtype, i);
        void *y = at_mutable(a->y, a->y_dtype, i);

        if (a->x_dtype == a->y_dtype)
            memmove(y, x, (size_t)n * hy3_dtype_size(a->x_dtype));
        else if (a->x_dtype == HY3_BF16)
            hy3_cpu_loops->widen(x, y, n);
        else
            hy3_cpu_loops->narrow(x, y, n);
    }
    return HY3_OK;
}

hy3_status hy3_cpu_add(struct hy3_stream *s, const struct hy3_add *a)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < a->n; i += PIECE) {
        int64_t n = a->n - i < PIECE ? a->n - i : PIECE;
        float xs[PIECE], ys[PIECE];
        const float *x = hy3_cpu_row(at(a->x, a->x_dtype, i), a->x_dtype, 0, n, xs);
        void *to = at_mutable(a->y, a->y_dtype, i);
        float *y = hy3_cpu_row_for(to, a->y_dtype, 0, n, ys);

        if (a->y_dtype != HY3_FP32)
            hy3_cpu_row(to, a->y_dtype, 0, n, ys);
        hy3_cpu_loops->axpy(x, 1, y, n);
        hy3_cpu_row_put(to, a->y_dtype, 0, n, y);
    }
    return HY3_OK;
}

hy3_status hy3_cpu_row_dot(struct hy3_stream *s, const struct hy3_row_dot *a)
{
    if (a->to)
        HY3_CHECK_INDICES(row_dot, to, a->N, 0, a->places);
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < a->N; n++) {
        float as[a->C], bs[a->C];

        a->y[a->to ? a->to[n] : n] =
            hy3_cpu_loops->dot(hy3_cpu_row(a->a, a->dtype, n, a->C, as),
                               hy3_cpu_row(a->b, a->dtype, n, a->C, bs), a->C);
    }
    return HY3_OK;
}

hy3_status hy3_cpu_dropout(struct hy3_stream *s, const struct hy3_dropout *a)
{
    uint64_t limit = (uint64_t)((double)a->p * 0x1p32);
    float keep = 1 / (1 - a->p);

#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < a->N; n++) {
        float xs[a->C], ys[a->C];
        const float *x = hy3_cpu_row(a->x, a->dtype, n, a->C, xs);
        float *y = hy3_cpu_row_for(a->y, a->dtype, n, a->C, ys);
        uint32_t word[4] = {0};

        for (int64_t i = 0; i < a->C; i++) {
            if (i % 4 == 0)
                hy3_random(a->seed, HY3_RANDOM_DROPOUT, a->keys[n],
                           (uint64_t)a->stream_id << 32 | (uint64_t)(i / 4), word);
            y[i] = word[i % 4] >= limit ? x[i] * keep : 0;
        }
        hy3_cpu_row_put(a->y, a->dtype, n, a->C, y);
    }
    return HY3_OK;
}

hy3_status hy3_cpu_noise(struct hy3_stream *s, const struct hy3_noise *a)
{
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < a->N; n++) {
        float ys[a->C];
        float *y = hy3_cpu_row_for(a->y, a->dtype, n, a->C, ys);
        uint32_t word[4] = {0};

        if (a->dtype != HY3_FP32)
            hy3_cpu_row(a->y, a->dtype, n, a->C, ys);
        for (int64_t i = 0; i < a->C; i++) {
            if (i % 4 == 0)
                hy3_random(a->seed, HY3_RANDOM_NOISE, a->keys[n], (uint64_t)(i / 4), word);
            y[i] += a->scale[n] * (2 * hy3_random_uniform(word[i % 4]) - 1);
        }
        hy3_cpu_row_put(a->y, a->dtype, n, a->C, y);
    }
    return HY3_OK;
}

/* Sums of fixed pieces, added in their order: the value does not depend on the number of
 * threads. */
hy3_status hy3_cpu_square_sum(struct hy3_stream *s, const struct hy3_square_sum *a)
{
    int64_t pieces = (a->n + PIECE - 1) / PIECE;
    double *partial, sum = 0;

    HY3_TRY(hy3_cpu_scratch(HY3_SLOT_PARTIAL, (size_t)pieces * sizeof *partial, &partial));
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < pieces; i++) {
        int64_t n = a->n - i * PIECE < PIECE ? a->n - i * PIECE : PIECE;
        float xs[PIECE];

        partial[i] = hy3_cpu_loops->square_sum(
            hy3_cpu_row(at(a->x, a->dtype, i * PIECE), a->dtype, 0, n, xs), n);
    }
    for (int64_t i = 0; i < pieces; i++)
        sum += partial[i];
    *a->sum = a->accumulate ? *a->sum + sum : sum;
    return HY3_OK;
}
