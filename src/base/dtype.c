/* SPDX-License-Identifier: Apache-2.0 */
/* dtype.c - half precision and conversions of whole arrays. */
#include "base/dtype.h"

#include "base/error.h"

float hy3_float_from_fp16(hy3_fp16 x)
{
    uint32_t sign = (uint32_t)(x & 0x8000) << 16, exponent = x >> 10 & 31, fraction = x & 0x3ff;

    if (exponent == 31)
        return hy3_float_from_bits(sign | 0x7f800000u | fraction << 13);
    if (exponent == 0) { /* zero or subnormal: fraction * 2^-24, exact in fp32 */
        float magnitude = (float)fraction * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    return hy3_float_from_bits(sign | (exponent + 112) << 23 | fraction << 13);
}

/* Shifts right by `shift` (1 to 31), rounding to nearest, ties to even. */
static uint32_t round_shift(uint32_t x, uint32_t shift)
{
    uint32_t kept = x >> shift, lost = x & ((1u << shift) - 1), half = 1u << (shift - 1);

    return kept + (lost > half || (lost == half && (kept & 1)));
}

hy3_fp16 hy3_fp16_from_float(float x)
{
    uint32_t bits = hy3_bits_from_float(x), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    uint32_t exponent = rest >> 23;

    if (rest > 0x7f800000) /* NaN */
        return (hy3_fp16)(sign | 0x7e00);
    if (rest >= 0x477ff000) /* rounds to infinity: >= 65520 */
        return (hy3_fp16)(sign | 0x7c00);
    if (exponent >= 113) /* normal; a carry into the exponent is right */
        return (hy3_fp16)(sign | round_shift(rest - (112u << 23), 13));
    if (exponent < 102) /* below half of the smallest subnormal */
        return (hy3_fp16)sign;
    return (hy3_fp16)(sign | round_shift((rest & 0x7fffff) | 0x800000, 126 - exponent));
}

static float load(const void *p, hy3_dtype dtype, size_t i)
{
    switch (dtype) {
    case HY3_FP32:
        return ((const float *)p)[i];
    case HY3_BF16:
        return hy3_float_from_bf16(((const hy3_bf16 *)p)[i]);
    case HY3_FP16:
        return hy3_float_from_fp16(((const hy3_fp16 *)p)[i]);
    case HY3_FP8:
        break;
    }
    HY3_BUG("dtype %d", (int)dtype);
}

/* The two conversions of every weight of a model, as loops without a choice inside. */
static void widen(const hy3_bf16 *restrict from, float *restrict to, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        to[i] = hy3_float_from_bf16(from[i]);
}

static void narrow(const float *restrict from, hy3_bf16 *restrict to, size_t n)
{
#pragma omp simd
    for (size_t i = 0; i < n; i++)
        to[i] = hy3_bf16_from_float(from[i]);
}

void hy3_convert(const void *from, hy3_dtype from_dtype, void *to, hy3_dtype to_dtype, size_t n)
{
    if (from_dtype == to_dtype) {
        memcpy(to, from, n * hy3_dtype_size(to_dtype));
        return;
    }
    if (from_dtype == HY3_BF16 && to_dtype == HY3_FP32) {
        widen(from, to, n);
        return;
    }
    if (from_dtype == HY3_FP32 && to_dtype == HY3_BF16) {
        narrow(from, to, n);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        float x = load(from, from_dtype, i);

        if (to_dtype == HY3_FP32)
            ((float *)to)[i] = x;
        else if (to_dtype == HY3_BF16)
            ((hy3_bf16 *)to)[i] = hy3_bf16_from_float(x);
        else
            ((hy3_fp16 *)to)[i] = hy3_fp16_from_float(x);
    }
}

const char *const hy3_dtype_names[] = {
    [HY3_FP32] = "fp32", [HY3_BF16] = "bf16", [HY3_FP16] = "fp16", NULL};

const char *hy3_dtype_name(hy3_dtype dtype)
{
    return hy3_dtype_names[dtype];
}
