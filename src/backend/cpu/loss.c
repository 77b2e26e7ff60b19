/* SPDX-License-Identifier: Apache-2.0 */
/* loss.c - cross-entropy of rows of logits. */
#include "backend/cpu/cpu.h"

#include <math.h>

enum { PIECE = 1024 }; /* logits handled in one buffer */

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
    }
    return HY3_OK;
}

/* dlogits = scale (exp(logits - lse) - [v == target]) */
hy3_status hy3_cpu_loss_backward(struct hy3_stream *s, const struct hy3_loss *a)
{
    const struct hy3_loops *loops = hy3_cpu_loops;

    HY3_CHECK_INDICES(loss, targets, a->N, -1, a->V);
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < a->N; n++) {
        int64_t target = a->targets[n];

        for (int64_t v = 0; v < a->V; v += PIECE) {
            int64_t count = a->V - v < PIECE ? a->V - v : PIECE;
            float d[PIECE];

            loops->exp_sum(a->logits + n * a->V + v, a->lse[n], d, count);
            loops->scale(d, target < 0 ? 0 : a->scale, d, count);
            if (target >= v && target < v + count)
                d[target - v] -= a->scale;
            if (a->dtype == HY3_FP32)
                memcpy((float *)a->dlogits + n * a->V + v, d, (size_t)count * sizeof *d);
            else
                loops->narrow(d, (hy3_bf16 *)a->dlogits + n * a->V + v, count);
        }
    }
    return HY3_OK;
}
