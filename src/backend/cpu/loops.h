/* SPDX-License-Identifier: Apache-2.0 */
/* loops.h - vector loops over fp32 arrays, compiled for three instruction sets from one source
 * (loops.inc).
 *
 * All arrays of a call may be the same where a comment does not say otherwise; n may be 0. */
#pragma once

#include "backend/adamw.h"
#include "backend/moments.h"
#include "base/dtype.h"

struct hy3_loops {
    const char *isa; /* "portable", "avx2", "avx512" */
    void (*widen)(const hy3_bf16 *x, float *y, int64_t n);
    void (*narrow)(const float *x, hy3_bf16 *y, int64_t n);
    float (*dot)(const float *x, const float *y, int64_t n);
    float (*dot3)(const float *x, const float *y, const float *z, int64_t n); /* sum x y z */
    double (*square_sum)(const float *x, int64_t n);
    float (*max)(const float *x, int64_t n); /* -inf if n is 0 */
    float (*exp_sum)(const float *x, float shift, float *y,
                     int64_t n);                                 /* y = exp(x - shift); sum y */
    void (*scale)(const float *x, float a, float *y, int64_t n); /* y = a x */
    void (*axpy)(const float *x, float a, float *y, int64_t n);  /* y += a x */
    void (*mul3)(const float *x, const float *w, float a, float *y, int64_t n);     /* y = a x w */
    void (*mul3_add)(const float *x, const float *w, float a, float *y, int64_t n); /* y += a x w */
    void (*swiglu)(const float *gate, const float *up, float *y, int64_t n);
    void (*swiglu_backward)(const float *gate, const float *up, const float *dy, float *dgate,
                            float *dup, int64_t n);
    /* hy3_join and hy3_split of n elements */
    void (*join)(const hy3_bf16 *high, const int16_t *low, float *x, int64_t n);
    void (*split)(const float *x, hy3_bf16 *high, int16_t *low, int64_t n);
    /* y = x scale; codes of x / scale; max |x| */
    void (*expand)(const hy3_fp8 *x, float scale, float *y, int64_t n);
    void (*quantize)(const float *x, float scale, hy3_fp8 *y, int64_t n);
    float (*magnitude)(const float *x, int64_t n);
    void (*adamw)(float *w, float *m, float *v, const float *g, const struct hy3_adamw_step *step,
                  int64_t n);
    float (*max_abs)(const float *x, int64_t n); /* 0 if n is 0 */
    /* x = value of its code * scale; and the codes of x / scale, scale > 0 */
    void (*decode)(const struct hy3_moment_book *book, const uint8_t *codes, float scale, float *x,
                   int64_t n);
    void (*encode)(const struct hy3_moment_book *book, const float *x, float scale, uint8_t *codes,
                   int64_t n);
    /* out[4 i .. 4 i + 3] = the words of hy3_random at low = first + i, for n of them */
    void (*random)(const uint32_t key[2], uint64_t high, uint64_t first, uint32_t *out, int64_t n);
    /* y = x, up with the probability of (word >> shift) % 65536 + rest >= 65536 */
    void (*narrow_random)(const float *x, const uint32_t *words, int shift, hy3_bf16 *y, int64_t n);
    /* C[M,N] += A B with A[m,k] at A[m row + k column], B [K,N] and C [M,N] with row strides; N a
     * multiple of 16. For tiles that stay in the cache. C overlaps neither A nor B. */
    void (*tile)(int64_t M, int64_t N, int64_t K, const float *A, int64_t row, int64_t column,
                 const float *B, int64_t b_row, float *C, int64_t c_row);
};

extern const struct hy3_loops hy3_loops_portable, hy3_loops_avx2, hy3_loops_avx512;
