/* SPDX-License-Identifier: Apache-2.0 */
/* swiglu.c - the gated activation. */
#include "backend/cpu/cpu.h"

/* Row n of a matrix with row stride ld, as fp32. */
static const float *strided(const void *matrix, const struct hy3_swiglu *a, int64_t n,
                            float *buffer)
{
    if (a->dtype == HY3_FP32)
        return (const float *)matrix + n * a->ld;
    hy3_cpu_loops->widen((const hy3_bf16 *)matrix + n * a->ld, buffer, a->I);
    return buffer;
}

static void put_strided(void *matrix, const struct hy3_swiglu *a, int64_t n, const float *from)
{
    if (a->dtype == HY3_FP32)
        memcpy((float *)matrix + n * a->ld, from, (size_t)a->I * sizeof *from);
    else
        hy3_cpu_loops->narrow(from, (hy3_bf16 *)matrix + n * a->ld, a->I);
}

hy3_status hy3_cpu_swiglu_forward(struct hy3_stream *s, const struct hy3_swiglu *a)
{
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < a->N; n++) {
        float gates[a->I], ups[a->I], ys[a->I];
        float *y = hy3_cpu_row_for(a->y, a->dtype, n, a->I, ys);

        hy3_cpu_loops->swiglu(strided(a->gate, a, n, gates), strided(a->up, a, n, ups), y, a->I);
        hy3_cpu_row_put(a->y, a->dtype, n, a->I, y);
    }
    return HY3_OK;
}

hy3_status hy3_cpu_swiglu_backward(struct hy3_stream *s, const struct hy3_swiglu *a)
{
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < a->N; n++) {
        float gates[a->I], ups[a->I], dys[a->I], dgate[a->I], dup[a->I];

        hy3_cpu_loops->swiglu_backward(strided(a->gate, a, n, gates), strided(a->up, a, n, ups),
                                       hy3_cpu_row(a->dy, a->dtype, n, a->I, dys), dgate, dup,
                                       a->I);
        put_strided(a->dgate, a, n, dgate);
        put_strided(a->dup, a, n, dup);
    }
    return HY3_OK;
}
