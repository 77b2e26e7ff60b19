/* SPDX-License-Identifier: Apache-2.0 */
/* router.c - choice of experts and their weights, and the order of rows by expert. */
#include "backend/cpu/cpu.h"

#include <math.h>

static float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

/* The k experts with the largest score + bias, ascending; equal sums: the smaller expert. */
static void choose(const struct hy3_router *a, const float *scores, int32_t *ids)
{
    char taken[a->E];

    memset(taken, 0, (size_t)a->E);
    for (int64_t j = 0; j < a->k; j++) {
        int64_t best = 0;

        while (taken[best])
            best++;
        for (int64_t e = best + 1; e < a->E; e++)
            if (!taken[e] && scores[e] + a->bias[e] > scores[best] + a->bias[best])
                best = e;
        taken[best] = 1;
    }
    for (int64_t e = 0, j = 0; e < a->E; e++)
        if (taken[e])
            ids[j++] = (int32_t)e;
}

hy3_status hy3_cpu_router_forward(struct hy3_stream *s, const struct hy3_router *a)
{
    if (a->replay)
        HY3_CHECK_INDICES(router, ids, a->T * a->k, 0, a->E);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < a->T; t++) {
        const float *logits = a->logits + t * a->E;
        int32_t *ids = a->ids + t * a->k;
        float scores[a->E], sum = 0;

        for (int64_t e = 0; e < a->E; e++)
            scores[e] = sigmoid(logits[e]);
        if (!a->replay)
            choose(a, scores, ids);
        for (int64_t j = 0; j < a->k; j++)
            sum += scores[ids[j]];
        for (int64_t j = 0; j < a->k; j++)
            a->weights[t * a->k + j] = scores[ids[j]] / (sum + 1e-20f) * a->scaling;
    }
    return HY3_OK;
}

/* With S = sum s + 1e-20, w_j = c s_j / S and g_j = w_j dw_j:  ds_j = c / S (dw_j - sum_i dw_i s_i
 * / S),  dlogit = ds s (1 - s) = (g_j - s_j / S sum_i g_i) (1 - s_j). */
hy3_status hy3_cpu_router_backward(struct hy3_stream *s, const struct hy3_router *a)
{
    HY3_CHECK_INDICES(router, ids, a->T * a->k, 0, a->E);
    HY3_CHECK_INDICES(router, place, a->T * a->k, 0, a->R);
#pragma omp parallel for schedule(static)
    for (int64_t t = 0; t < a->T; t++) {
        const int32_t *ids = a->ids + t * a->k, *place = a->place + t * a->k;
        float *dlogits = a->dlogits + t * a->E, scores[a->k], sum = 1e-20f, all = 0;

        memset(dlogits, 0, (size_t)a->E * sizeof *dlogits);
        for (int64_t j = 0; j < a->k; j++) {
            scores[j] = sigmoid(a->logits[t * a->E + ids[j]]);
            sum += scores[j];
            all += a->products[place[j]];
        }
        for (int64_t j = 0; j < a->k; j++)
            dlogits[ids[j]] = (a->products[place[j]] - scores[j] / sum * all) * (1 - scores[j]);
    }
    return HY3_OK;
}

/* -1: none, or that of the token's choice before. */
static int64_t owner(const struct hy3_route_index *a, int64_t i)
{
    const int32_t *id = a->ids + i * a->stride;
    int64_t g = *id < 0 ? -1 : *id / a->width;

    return g >= 0 && i % a->k > 0 && id[-a->stride] / a->width == g ? -1 : g;
}

hy3_status hy3_cpu_route_index(struct hy3_stream *s, const struct hy3_route_index *a)
{
    int64_t next[a->G];

    if (a->stride == 1)
        HY3_CHECK_INDICES(route_index, ids, a->T * a->k, 0, a->G * a->width);
    memset(a->starts, 0, (size_t)(a->G + 1) * sizeof *a->starts);
    for (int64_t i = 0; i < a->T * a->k; i++)
        if (owner(a, i) >= 0)
            a->starts[owner(a, i) + 1]++;
    for (int64_t g = 0; g < a->G; g++) {
        next[g] = a->starts[g];
        a->starts[g + 1] += a->starts[g];
    }
    for (int64_t i = 0; i < a->T * a->k; i++) {
        int64_t g = owner(a, i);

        a->position[i] = g < 0 ? -1 : (int32_t)next[g]++;
        if (g >= 0)
            a->token[a->position[i]] = (int32_t)(i / a->k);
    }
    return HY3_OK;
}
