/* SPDX-License-Identifier: Apache-2.0 */
/* adamw.c - the update, in one pass over memory; moments that are not fp32 are widened piece by
 * piece. */
#include "backend/cpu/cpu.h"
#include "base/random.h"

#include <float.h>

enum { PIECE = 16 * HY3_MOMENT_BLOCK };

/* Elements at .. at + n of the arrays, at most up to the end of a piece of the tensor. */
struct piece {
    int64_t at, n;
    float m[PIECE], v[PIECE];
};

/* The moment of a piece as codes, or back from them. */
static void code_moment(const struct hy3_adamw *a, const struct piece *p, bool is_first, float *x,
                        bool encode)
{
    const struct hy3_moment_book *book = hy3_moment_book(is_first);
    uint8_t *codes = (uint8_t *)(is_first ? a->m : a->v) + p->at;
    float *scales = is_first ? a->m_scale : a->v_scale;
    int64_t before = a->first % HY3_MOMENT_BLOCK, n;

    for (int64_t i = 0; i < p->n; i += n) {
        int64_t place = before + p->at + i, block = place / HY3_MOMENT_BLOCK;

        n = (block + 1) * HY3_MOMENT_BLOCK - place;
        n = n < p->n - i ? n : p->n - i;
        if (!encode) {
            hy3_cpu_loops->decode(book, codes + i, scales[block], x + i, n);
            continue;
        }
        scales[block] = hy3_cpu_loops->max_abs(x + i, n);
        scales[block] = scales[block] < FLT_MAX ? scales[block] : FLT_MAX;
        if (scales[block] > 0)
            hy3_cpu_loops->encode(book, x + i, scales[block], codes + i, n);
        else
            memset(codes + i, book->zero, (size_t)n);
    }
}

/* Both moments of a piece to bf16. */
static void round_moments(const struct hy3_adamw *a, const struct piece *p)
{
    uint64_t first = (uint64_t)(a->first + p->at), fours = first / 4;
    uint32_t words[PIECE + 8], key[2];

    hy3_random_key(a->seed, HY3_RANDOM_MOMENT, key);
    hy3_cpu_loops->random(key, (uint64_t)a->step << 32 | (uint64_t)a->tensor, fours, words,
                          (int64_t)((first + (uint64_t)p->n + 3) / 4 - fours));
    hy3_cpu_loops->narrow_random(p->m, words + first % 4, 16, (hy3_bf16 *)a->m + p->at, p->n);
    hy3_cpu_loops->narrow_random(p->v, words + first % 4, 0, (hy3_bf16 *)a->v + p->at, p->n);
}

static void widen(const struct hy3_adamw *a, struct piece *p)
{
    if (a->moments == HY3_MOMENTS_BF16) {
        hy3_cpu_loops->widen((const hy3_bf16 *)a->m + p->at, p->m, p->n);
        hy3_cpu_loops->widen((const hy3_bf16 *)a->v + p->at, p->v, p->n);
        return;
    }
    code_moment(a, p, true, p->m, false);
    code_moment(a, p, false, p->v, false);
}

static void narrow(const struct hy3_adamw *a, struct piece *p)
{
    if (a->moments == HY3_MOMENTS_BF16) {
        round_moments(a, p);
        return;
    }
    code_moment(a, p, true, p->m, true);
    code_moment(a, p, false, p->v, true);
}

static void update(const struct hy3_adamw *a, const struct hy3_adamw_step *step, int64_t at,
                   int64_t n)
{
    float joined[PIECE], *w = a->low ? joined : (float *)a->weight + at;
    bool is_plain = a->moments == HY3_MOMENTS_FP32;
    struct piece p;

    p.at = at;
    p.n = n;
    if (a->low)
        hy3_cpu_loops->join((hy3_bf16 *)a->weight + at, a->low + at, w, n);
    if (!is_plain)
        widen(a, &p);
    hy3_cpu_loops->adamw(w, is_plain ? (float *)a->m + at : p.m,
                         is_plain ? (float *)a->v + at : p.v, a->grad + at, step, n);
    if (!is_plain)
        narrow(a, &p);
    if (a->low)
        hy3_cpu_loops->split(w, (hy3_bf16 *)a->weight + at, a->low + at, n);
}

hy3_status hy3_cpu_adamw(struct hy3_stream *s, const struct hy3_adamw *a)
{
    const struct hy3_adamw_step step = hy3_adamw_factors(a);
    int64_t before = a->moments == HY3_MOMENTS_8BIT ? a->first % HY3_MOMENT_BLOCK : 0;

#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < before + a->n; i += PIECE) {
        int64_t at = i > before ? i - before : 0, end = i + PIECE - before;

        update(a, &step, at, (end < a->n ? end : a->n) - at);
    }
    return HY3_OK;
}
