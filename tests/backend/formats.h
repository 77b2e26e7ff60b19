/* SPDX-License-Identifier: Apache-2.0 */
/* formats.h - moments in their formats for reference.c: one number at a time, codes by looking at
 * one edge after the other. */
#pragma once

#include "backend/kernels.h"
#include "backend/moments.h"
#include "base/random.h"

#include <float.h>
#include <math.h>

/* The block, counted from that of the first element, of element i. */
static int64_t moment_block(const struct hy3_adamw *a, int64_t i)
{
    return (a->first % HY3_MOMENT_BLOCK + i) / HY3_MOMENT_BLOCK;
}

static float get_moment(const struct hy3_adamw *a, bool is_first, int64_t i)
{
    const void *x = is_first ? a->m : a->v;

    if (a->moments == HY3_MOMENTS_FP32)
        return ((const float *)x)[i];
    if (a->moments == HY3_MOMENTS_BF16)
        return hy3_float_from_bf16(((const hy3_bf16 *)x)[i]);
    return hy3_moment_book(is_first)->value[((const uint8_t *)x)[i]] *
           (is_first ? a->m_scale : a->v_scale)[moment_block(a, i)];
}

static uint8_t nearest_code(bool is_first, float y)
{
    const struct hy3_moment_book *book = hy3_moment_book(is_first);
    int code = 0;

    while (code < 255 && book->edge[code + 1] < y)
        code++;
    return (uint8_t)code;
}

/* All n moments, once all were read. */
static void put_moments(const struct hy3_adamw *a, bool is_first, const float *x)
{
    void *to = is_first ? a->m : a->v;
    float *scales = is_first ? a->m_scale : a->v_scale;

    for (int64_t i = 0; a->moments == HY3_MOMENTS_8BIT && i < a->n; i++) {
        float *scale = &scales[moment_block(a, i)];

        *scale = i == 0 || moment_block(a, i - 1) < moment_block(a, i) ? 0 : *scale;
        *scale = fminf(fmaxf(fabsf(x[i]), *scale), FLT_MAX);
    }
    for (int64_t i = 0; i < a->n; i++) {
        uint64_t place = (uint64_t)(a->first + i);
        uint32_t word[4], random;

        hy3_random(a->seed, HY3_RANDOM_MOMENT, (uint64_t)a->step << 32 | (uint64_t)a->tensor,
                   place / 4, word);
        random = word[place % 4] >> (is_first ? 16 : 0) & 0xffff;
        if (a->moments == HY3_MOMENTS_FP32)
            ((float *)to)[i] = x[i];
        else if (a->moments == HY3_MOMENTS_BF16)
            ((hy3_bf16 *)to)[i] = (hy3_bf16)((hy3_bits_from_float(x[i]) + random) >> 16);
        else
            ((uint8_t *)to)[i] = nearest_code(
                is_first, scales[moment_block(a, i)] > 0 ? x[i] / scales[moment_block(a, i)] : 0);
    }
}
