/* SPDX-License-Identifier: Apache-2.0 */
/* scaled.h - the part of reference.c that is about 8-bit weights. */
#pragma once

/* Sign, exponent of 4 bits with bias 7, fraction of 3 bits. */
static double code_value(hy3_fp8 code)
{
    int exponent = code >> 3 & 15, fraction = code & 7;
    double magnitude = exponent == 0 ? ldexp(fraction, -9) : ldexp(8 + fraction, exponent - 10);

    return code & 0x80 ? -magnitude : magnitude;
}

static int64_t scale_place(int64_t i, int64_t K, int64_t rows, int64_t columns)
{
    return i / K / rows * ((K + columns - 1) / columns) + i % K / columns;
}

FUNCTION(expand, expand)
{
    int64_t n = a->N * a->K;

    UNUSED;
    for (int64_t i = 0; i < a->M * n; i++)
        put(a->y, a->dtype, i,
            (float)code_value(a->x[i]) *
                a->scales[i / n * a->stride + scale_place(i % n, a->K, a->rows, a->columns)]);
    return HY3_OK;
}

/* The nearest of all codes, of two the even one. */
static hy3_fp8 nearest_fp8(double x)
{
    hy3_fp8 best = 0;

    for (int code = 1; code < 0x7f; code++) {
        double nearer =
            fabs(fabs(x) - code_value((hy3_fp8)code)) - fabs(fabs(x) - code_value(best));

        if (nearer < 0 || (nearer == 0 && code % 2 == 0))
            best = (hy3_fp8)code;
    }
    return signbit(x) ? best | 0x80 : best;
}

FUNCTION(quantize, quantize)
{
    int64_t blocks = (a->N + a->rows - 1) / a->rows * ((a->K + a->columns - 1) / a->columns);

    UNUSED;
    for (int64_t b = 0; b < blocks; b++)
        a->scales[b] = 0;
    for (int64_t i = 0; i < a->N * a->K; i++) {
        float *scale = &a->scales[scale_place(i, a->K, a->rows, a->columns)];

        *scale = fmaxf(*scale, fabsf((float)get(a->x, a->dtype, i)));
    }
    for (int64_t b = 0; b < blocks; b++)
        a->scales[b] = a->scales[b] == 0 ? 1 : fmaxf(a->scales[b] / 448, 0x1p-126f);
    for (int64_t i = 0; i < a->N * a->K; i++)
        a->y[i] = nearest_fp8((float)get(a->x, a->dtype, i) /
                              a->scales[scale_place(i, a->K, a->rows, a->columns)]);
    return HY3_OK;
}
