/* SPDX-License-Identifier: Apache-2.0 */
/* rmsnorm.c - RMSNorm of rows. */
#include "backend/cpu/cpu.h"

#include <math.h>

enum { BLOCK = 32 }; /* rows whose part of dw is summed by one thread */

hy3_status hy3_cpu_rmsnorm_forward(struct hy3_stream *s, const struct hy3_rmsnorm *a)
{
    const struct hy3_loops *loops = hy3_cpu_loops;

#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < a->T; t++) {
        float xs[a->H], ws[a->H], ys[a->H];
        const float *x = hy3_cpu_row(a->x, a->dtype, t, a->H, xs);
        const float *w = hy3_cpu_row(a->w, a->dtype, 0, a->H, ws);
        float *y = hy3_cpu_row_for(a->y, a->dtype, t, a->H, ys);

        a->r[t] = 1 / sqrtf(loops->dot(x, x, a->H) / (float)a->H + a->eps);
        loops->mul3(x, w, a->r[t], y, a->H);
        hy3_cpu_row_put(a->y, a->dtype, t, a->H, y);
    }
    return HY3_OK;
}

/* dx = r (w dy - x r^2 mean(w dy x)); adds x r dy to dw. */
static void row_backward(const struct hy3_rmsnorm *a, int64_t t, float *dw)
{
    const struct hy3_loops *loops = hy3_cpu_loops;
    float xs[a->H], ws[a->H], dys[a->H], dxs[a->H], r = a->r[t];
    const float *x = hy3_cpu_row(a->x, a->dtype, t, a->H, xs);
    const float *w = hy3_cpu_row(a->w, a->dtype, 0, a->H, ws);
    const float *dy = hy3_cpu_row(a->dy, a->dtype, t, a->H, dys);
    float *dx = hy3_cpu_row_for(a->dx, a->dtype, t, a->H, dxs);
    float mean = loops->dot3(x, w, dy, a->H) / (float)a->H;

    if (a->dtype != HY3_FP32)
        hy3_cpu_row(a->dx, a->dtype, t, a->H, dxs);
    loops->mul3_add(w, dy, r, dx, a->H);
    loops->axpy(x, -r * r * r * mean, dx, a->H);
    hy3_cpu_row_put(a->dx, a->dtype, t, a->H, dx);
    if (dw)
        loops->mul3_add(x, dy, r, dw, a->H);
}

hy3_status hy3_cpu_rmsnorm_backward(struct hy3_stream *s, const struct hy3_rmsnorm *a)
{
    int64_t blocks = (a->T + BLOCK - 1) / BLOCK;
    float *partial = NULL;

    if (a->dw) {
        HY3_TRY(
            hy3_cpu_scratch(HY3_SLOT_PARTIAL, (size_t)(blocks * a->H) * sizeof *partial, &partial));
        if (blocks > 0)
            memset(partial, 0, (size_t)(blocks * a->H) * sizeof *partial);
    }
#pragma omp parallel for schedule(static)
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t t = b * BLOCK; t < a->T && t < (b + 1) * BLOCK; t++)
            row_backward(a, t, partial ? partial + b * a->H : NULL);
    for (int64_t b = 0; partial && b < blocks; b++)
        hy3_cpu_loops->axpy(partial + b * a->H, 1, a->dw, a->H);
    return HY3_OK;
}
