/* SPDX-License-Identifier: Apache-2.0 */
/* moments.h - AdamW's moments in 8 bits: numbers of a block of 256 as codes and one fp32 scale, the
 * block's largest magnitude. Source: Dettmers et al. 2022, "8-bit Optimizers via Block-wise
 * Quantization", section 2: the dynamic code, whose numbers lie evenly within each of seven
 * decades, twice as many in each decade as in the one below.
 *
 * A number is its code's value times the scale; its code is the one whose value is nearest to
 * number / scale, the lower one halfway between two. Two things differ from the paper's:
 *  1. -1 is a value of the signed code, as 1 is, so a block's largest magnitude is exact whatever
 *     its sign. Therefore numbers that were decoded are encoded into the same bits again, and a
 *     file may hold numbers instead of codes.
 *  2. A second moment that is not 0 never becomes 0: a weight's update is divided by its root.
 *
 * Blocks are counted from the start of the tensor. Where a rank's part of a tensor begins or ends
 * inside a block, what it has of it is a block by itself. So codes depend on the layout only there,
 * and a resumed run has the same bits on the same layout. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { HY3_MOMENT_BLOCK = 256, HY3_MOMENT_DECADES = 7 };

/* value and edge ascend; edge[i] lies between the values of the codes i - 1 and i. The others lead
 * from a magnitude to its code, or to one beside it. */
struct hy3_moment_book {
    float value[256];
    float edge[257];
    float slope[HY3_MOMENT_DECADES], base[HY3_MOMENT_DECADES];
    int32_t zero; /* the code of 0 */
};

/* Local. The code of first moments (is_signed) or of second ones. Made by the first call, which
 * hy3_cpu_backend does before there are threads. */
const struct hy3_moment_book *hy3_moment_book(bool is_signed);

/* The number of edges below y, which is number / scale. */
static inline int32_t hy3_moment_code(const struct hy3_moment_book *book, float y)
{
    float x = y < 1 ? y : 1, a;
    int32_t decade, code;

    x = x > -1 ? x : -1;
    a = x < 0 ? -x : x;
    decade = (a > 1e-1f) + (a > 1e-2f) + (a > 1e-3f) + (a > 1e-4f) + (a > 1e-5f) + (a > 1e-6f);
    code = (int32_t)(a * book->slope[decade] + book->base[decade]);
    code = x < 0 ? book->zero - code : book->zero + code;
    code = code < 0 ? 0 : code;
    code = code > 255 ? 255 : code;
    return code + (x > book->edge[code + 1]) - (x <= book->edge[code]);
}

/* Local. Codes of a block, n <= HY3_MOMENT_BLOCK; its scale. An infinite number counts as the
 * largest finite one. */
float hy3_moments_encode(const struct hy3_moment_book *book, const float *x, int64_t n,
                         uint8_t *codes);
void hy3_moments_decode(const struct hy3_moment_book *book, const uint8_t *codes, float scale,
                        int64_t n, float *x);

/* Blocks that `count` elements of a tensor from `first` on take part in. */
static inline int64_t hy3_moment_blocks(int64_t first, int64_t count)
{
    return (first % HY3_MOMENT_BLOCK + count + HY3_MOMENT_BLOCK - 1) / HY3_MOMENT_BLOCK;
}
