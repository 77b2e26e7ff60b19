/* SPDX-License-Identifier: Apache-2.0 */
/* dtype.h - element types and the conversions between them.
 *
 * bf16 is the upper half of an fp32. Conversions to a narrower type round to nearest, ties to even,
 * as PyTorch does; NaN stays NaN. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* HY3_FP8: E4M3, of frozen weights only, which are its values times a scale. */
typedef enum { HY3_FP32, HY3_BF16, HY3_FP16, HY3_FP8 } hy3_dtype;

typedef uint16_t hy3_bf16;
typedef uint16_t hy3_fp16;
typedef uint8_t hy3_fp8;

static inline size_t hy3_dtype_size(hy3_dtype dtype)
{
    return dtype == HY3_FP32 ? 4 : dtype == HY3_FP8 ? 1 : 2;
}

static inline float hy3_float_from_bits(uint32_t bits)
{
    float x;

    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline uint32_t hy3_bits_from_float(float x)
{
    uint32_t bits;

    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float hy3_float_from_bf16(hy3_bf16 x)
{
    return hy3_float_from_bits((uint32_t)x << 16);
}

static inline hy3_bf16 hy3_bf16_from_float(float x)
{
    uint32_t bits = hy3_bits_from_float(x);

    if ((bits & 0x7fffffffu) > 0x7f800000u) /* NaN: keep it one */
        return (hy3_bf16)(bits >> 16 | 0x40);
    return (hy3_bf16)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* A float as its bf16, rounded to nearest (ties away from zero), and the difference of their bits;
 * hy3_join gives back the same bits. */
static inline hy3_bf16 hy3_split(float x, int16_t *low)
{
    uint32_t bits = hy3_bits_from_float(x), high = (bits + 0x8000u) >> 16;

    *low = (int16_t)(uint16_t)(bits & 0xffffu); /* bits - 65536 high, which is in [-32768, 32767] */
    return (hy3_bf16)high;
}

static inline float hy3_join(hy3_bf16 high, int16_t low)
{
    return hy3_float_from_bits(((uint32_t)high << 16) + (uint32_t)(int32_t)low);
}

/* OCP 8-bit E4M3 (Micikevicius et al., "FP8 Formats for Deep Learning", 2022): up to 448, no
 * infinity. x must not be NaN; beyond 448 it is cut. */
static inline float hy3_float_from_fp8(hy3_fp8 x)
{
    float magnitude = hy3_float_from_bits((uint32_t)(x & 0x7f) << 20) * 0x1p120f;

    return hy3_float_from_bits((uint32_t)(x & 0x80) << 24 | hy3_bits_from_float(magnitude));
}

static inline hy3_fp8 hy3_fp8_from_float(float x)
{
    const float steps = 0x1p14f; /* whose last bit is the smallest step, 2^-9 */
    uint32_t bits = hy3_bits_from_float(x), rest = bits & 0x7fffffff;
    uint32_t normal = ((rest + 0x7ffff + (rest >> 20 & 1)) >> 20) - (120 << 3);
    uint32_t small =
        hy3_bits_from_float(hy3_float_from_bits(rest) + steps) - hy3_bits_from_float(steps);
    uint32_t code = rest < 0x3c800000 ? small : normal; /* 2^-6, the smallest normal one */

    return (hy3_fp8)((bits >> 24 & 0x80) | (code > 0x7e ? 0x7e : code));
}

static inline bool hy3_fp8_is_nan(hy3_fp8 x)
{
    return (x & 0x7f) == 0x7f;
}

/* Half precision, IEEE 754 binary16, with subnormals. */
float hy3_float_from_fp16(hy3_fp16 x);
hy3_fp16 hy3_fp16_from_float(float x);

/* Converts n elements; `from` and `to` must not overlap. Host memory. Not for HY3_FP8, which needs
 * scales. */
void hy3_convert(const void *from, hy3_dtype from_dtype, void *to, hy3_dtype to_dtype, size_t n);

/* "fp32", "bf16", "fp16", NULL. */
extern const char *const hy3_dtype_names[];

const char *hy3_dtype_name(hy3_dtype dtype);
