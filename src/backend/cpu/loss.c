/* SPDX-License-Identifier: Apache-2.0 */
/* loss.c - cross-entropy of rows of logits. */
#include "backend/cpu/cpu.h"

#include <math.h>

enum { PIECE = 1024 }; /* logits handled in one buffer */

/* lse less the smoothed logits of the target and of all. */
static float smoothed_loss(const struct hy3_loss *a, const float *x, float lse, int64_t target)
{
    double sum = 0, e = (double)a->smoothing;

#pragma omp simd reduction(+ : sum)
    for (int64_t v = 0; v < a->V; v++)
        sum += (double)x[v];
    return (float)((double)lse - (1 - e) * (double)x[target] - e * sum / (double)a->V);
}

hy3_status hy3_cpu_loss_forward(struct hy3_stream *s, const struct hy3_loss *a)
{
    const struct hy3_loops *loops = hy3_cpu_loops;

    HY3_CHECK_INDICES(loss, targets, a->N, -1, a->V);
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < a->N; n++) {
        const float *x = a->logits + n * a->V;
        float largest = loops->max(x, a->V), buffer[PIECE];
        double sum = 0;

        for (int64_t v = 0; v < a->V; v += PIECE)
            sum += loops->exp_sum(x + v, largest, buffer, a->V - v < PIECE ? a->V - v : PIECE);
        /* cppcheck-suppress invalidFunctionArg ; V > 0, and the largest logit alone adds 1 */
        a->lse[n] = largest + (float)log(sum);
        a->loss[n] = a->targets[n] < 0 ? 0 : a->lse[n] - x[a->targets[n]];
        if (a->smoothing > 0 && a->targets[n] >= 0)
            a->loss[n] = smoothed_loss(a, x, a->lse[n], a->targets[n]);
    }
    return HY3_OK;
}

/* dlogits = scale weight (exp(logits - lse) - (1 - e) [v == target] - e / V) */
hy3_status hy3_cpu_loss_backward(struct hy3_stream *s, const struct hy3_loss *a)
{
    const struct hy3_loops *loops = hy3_cpu_loops;

    HY3_CHECK_INDICES(loss, targets, a->N, -1, a->V);
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < a->N; n++) {
        int64_t target = a->targets[n];
        float scale = a->weights ? a->scale * a->weights[n] : a->scale;
        float even = scale * a->smoothing / (float)a->V, hit = scale * (1 - a->smoothing);

        for (int64_t v = 0; v < a->V; v += PIECE) {
            int64_t count = a->V - v < PIECE ? a->V - v : PIECE;
            float d[PIECE];

            loops->exp_sum(a->logits + n * a->V + v, a->lse[n], d, count);
            loops->scale(d, target < 0 ? 0 : scale, d, count);
            for (int64_t i = 0; i < count && a->smoothing > 0 && target >= 0; i++)
                d[i] -= even;
            if (target >= v && target < v + count)
                d[target - v] -= hit;
            if (a->dtype == HY3_FP32)
                memcpy((float *)a->dlogits + n * a->V + v, d, (size_t)count * sizeof *d);
            else
                loops->narrow(d, (hy3_bf16 *)a->dlogits + n * a->V + v, count);
        }
    }
    return HY3_OK;
}
