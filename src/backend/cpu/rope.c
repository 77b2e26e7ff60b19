/* SPDX-License-Identifier: Apache-2.0 */
/* rope.c - norm of each head, then rotation by position. */
#include "backend/cpu/cpu.h"
#include "base/memory.h"

#include <math.h>

enum { BLOCK = 32 }; /* tokens whose part of dw is summed by one thread */

/* cos and sin of every position seen so far, for one theta and D. */
static struct {
    double theta;
    int64_t D, positions;
    float *cosines, *sines; /* [positions,D/2] */
} table;

/* Angles as transformers computes them: inverse frequencies and their product with the position in
 * fp32. */
static hy3_status extend_table(const struct hy3_rope *a)
{
    int64_t last = 0, half = a->D / 2, count;

    for (int64_t t = 0; t < a->T; t++)
        last = a->positions[t] > last ? a->positions[t] : last;
    if (table.theta == a->theta && table.D == a->D && last < table.positions)
        return HY3_OK;
    for (count = 256; count <= last; count *= 2) {}
    hy3_free(table.cosines);
    hy3_free(table.sines);
    table.positions = 0;
    table.cosines = table.sines = NULL;
    HY3_TRY(hy3_alloc(&table.cosines, (size_t)(count * half), sizeof(float)));
    HY3_TRY(hy3_alloc(&table.sines, (size_t)(count * half), sizeof(float)));
    for (int64_t i = 0; i < half; i++) {
        float frequency = 1.0f / powf((float)a->theta, (float)(2 * i) / (float)a->D);

        for (int64_t p = 0; p < count; p++) {
            float angle = (float)p * frequency;

            table.cosines[p * half + i] = (float)cos((double)angle);
            table.sines[p * half + i] = (float)sin((double)angle);
        }
    }
    table.theta = a->theta;
    table.D = a->D;
    table.positions = count;
    return HY3_OK;
}

/* y = x turned by the position's angles; direction -1 turns back. x and y are not the same. */
static void rotate(const struct hy3_rope *a, int64_t t, const float *x, float direction, float *y)
{
    int64_t half = a->D / 2;
    const float *c = table.cosines + a->positions[t] * half;
    const float *s = table.sines + a->positions[t] * half;

#pragma omp simd
    for (int64_t i = 0; i < half; i++) {
        y[i] = x[i] * c[i] - direction * x[i + half] * s[i];
        y[i + half] = x[i + half] * c[i] + direction * x[i] * s[i];
    }
}

static void head_forward(const struct hy3_rope *a, int64_t t, int64_t row, const float *w)
{
    const struct hy3_loops *loops = hy3_cpu_loops;
    float xs[a->D], n[a->D], ys[a->D];
    const float *x = hy3_cpu_row(a->x, a->dtype, row, a->D, xs);
    float *y = hy3_cpu_row_for(a->y, a->dtype, row, a->D, ys);

    a->r[row] = 1 / sqrtf(loops->dot(x, x, a->D) / (float)a->D + a->eps);
    loops->mul3(x, w, a->r[row], n, a->D);
    rotate(a, t, n, 1, y);
    hy3_cpu_row_put(a->y, a->dtype, row, a->D, y);
}

hy3_status hy3_cpu_rope_forward(struct hy3_stream *s, const struct hy3_rope *a)
{
    HY3_CHECK_INDICES(rope, positions, a->T, 0, INT32_MAX);
    HY3_TRY(extend_table(a));
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < a->T; t++) {
        float ws[a->D];
        const float *w = hy3_cpu_row(a->w, a->dtype, 0, a->D, ws);

        for (int64_t h = 0; h < a->heads; h++)
            head_forward(a, t, t * a->heads + h, w);
    }
    return HY3_OK;
}

static void head_backward(const struct hy3_rope *a, int64_t t, int64_t row, const float *w,
                          float *dw)
{
    const struct hy3_loops *loops = hy3_cpu_loops;
    float xs[a->D], dys[a->D], dn[a->D], dxs[a->D], r = a->r[row], mean;
    const float *x = hy3_cpu_row(a->x, a->dtype, row, a->D, xs);
    const float *dy = hy3_cpu_row(a->dy, a->dtype, row, a->D, dys);
    float *dx = hy3_cpu_row_for(a->dx, a->dtype, row, a->D, dxs);

    rotate(a, t, dy, -1, dn);
    mean = loops->dot3(x, w, dn, a->D) / (float)a->D;
    if (dw)
        loops->mul3_add(x, dn, r, dw, a->D);
    loops->mul3(dn, w, r, dn, a->D);
    loops->scale(x, -r * r * r * mean, dx, a->D);
    loops->axpy(dn, 1, dx, a->D);
    hy3_cpu_row_put(a->dx, a->dtype, row, a->D, dx);
}

hy3_status hy3_cpu_rope_backward(struct hy3_stream *s, const struct hy3_rope *a)
{
    int64_t blocks = (a->T + BLOCK - 1) / BLOCK;
    float *partial = NULL;

    HY3_CHECK_INDICES(rope, positions, a->T, 0, INT32_MAX);
    HY3_TRY(extend_table(a));
    if (a->dw) {
        HY3_TRY(
            hy3_cpu_scratch(HY3_SLOT_PARTIAL, (size_t)(blocks * a->D) * sizeof *partial, &partial));
        if (blocks > 0)
            memset(partial, 0, (size_t)(blocks * a->D) * sizeof *partial);
    }
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks; b++) {
        float ws[a->D];
        const float *w = hy3_cpu_row(a->w, a->dtype, 0, a->D, ws);

        for (int64_t t = b * BLOCK; t < a->T && t < (b + 1) * BLOCK; t++)
            for (int64_t h = 0; h < a->heads; h++)
                head_backward(a, t, t * a->heads + h, w, partial ? partial + b * a->D : NULL);
    }
    for (int64_t b = 0; partial && b < blocks; b++)
        hy3_cpu_loops->axpy(partial + b * a->D, 1, a->dw, a->D);
    return HY3_OK;
}
