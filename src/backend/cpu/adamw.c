/* SPDX-License-Identifier: Apache-2.0 */
/* adamw.c - the update, in one pass over memory. */
#include "backend/cpu/cpu.h"

enum { PIECE = 4096 };

hy3_status hy3_cpu_adamw(struct hy3_stream *s, const struct hy3_adamw *a)
{
    const struct hy3_adamw_step step = hy3_adamw_factors(a);

#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < a->n; i += PIECE) {
        int64_t n = a->n - i < PIECE ? a->n - i : PIECE;
        float joined[PIECE], *w = a->low ? joined : (float *)a->weight + i;

        if (a->low)
            hy3_cpu_loops->join((hy3_bf16 *)a->weight + i, a->low + i, w, n);
        hy3_cpu_loops->adamw(w, a->m + i, a->v + i, a->grad + i, &step, n);
        if (a->low)
            hy3_cpu_loops->split(w, (hy3_bf16 *)a->weight + i, a->low + i, n);
    }
    return HY3_OK;
}
