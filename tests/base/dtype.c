/* SPDX-License-Identifier: Apache-2.0 */
/* dtype.c - narrow floats: every pattern, and rounding to nearest even. */
#include "base/dtype.h"

#include "support/test.h"

#include <math.h>

static void every_narrow_number_survives_the_way_through_fp32(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        float b = hy3_float_from_bf16((hy3_bf16)bits), h = hy3_float_from_fp16((hy3_fp16)bits);

        if (isnan(b))
            assert_true(isnan(hy3_float_from_bf16(hy3_bf16_from_float(b))));
        else
            assert_int_equal(hy3_bf16_from_float(b), bits);
        if (isnan(h))
            assert_true(isnan(hy3_float_from_fp16(hy3_fp16_from_float(h))));
        else
            assert_int_equal(hy3_fp16_from_float(h), bits);
    }
}

/* Between two neighbours: the nearer one, in the middle the even one. */
static void rounding_goes_to_the_nearest_and_ties_to_even(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x7bff; bits++) {
        float low = hy3_float_from_fp16((hy3_fp16)bits),
              high = hy3_float_from_fp16((hy3_fp16)(bits + 1));
        float middle = (float)(((double)low + (double)high) / 2);

        assert_int_equal(hy3_fp16_from_float(middle), bits % 2 ? bits + 1 : bits);
        assert_int_equal(hy3_fp16_from_float(nextafterf(middle, 0)), bits);
        assert_int_equal(hy3_fp16_from_float(nextafterf(middle, 1e9f)), bits + 1);
    }
    for (uint32_t bits = 0; bits < 0x7f7f; bits++) {
        uint32_t middle = bits << 16 | 0x8000;

        assert_int_equal(hy3_bf16_from_float(hy3_float_from_bits(middle)),
                         bits % 2 ? bits + 1 : bits);
        assert_int_equal(hy3_bf16_from_float(hy3_float_from_bits(middle - 1)), bits);
        assert_int_equal(hy3_bf16_from_float(hy3_float_from_bits(middle + 1)), bits + 1);
    }
    assert_int_equal(hy3_fp16_from_float(65520), 0x7c00);
    assert_int_equal(hy3_fp16_from_float(65519), 0x7bff);
}

/* The value of a half by the standard's formula, in fp64. */
static double half_value(uint32_t bits)
{
    int exponent = (int)(bits >> 10 & 31), fraction = (int)(bits & 0x3ff);
    double magnitude = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);

    return bits & 0x8000 ? -magnitude : magnitude;
}

static void every_half_is_what_ieee_754_says(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        float x = hy3_float_from_fp16((hy3_fp16)bits);

        if ((bits & 0x7c00) != 0x7c00)
            assert_true((double)x == half_value(bits) && !signbit(x) == !(bits & 0x8000));
        else if (bits & 0x3ff)
            assert_true(isnan(x));
        else
            assert_true(isinf(x) && !signbit(x) == !(bits & 0x8000));
    }
}

static void signs_infinities_and_nan_are_kept(void **state)
{
    (void)state;
    assert_int_equal(hy3_bf16_from_float(-0.0f), 0x8000);
    assert_int_equal(hy3_fp16_from_float(-0.0f), 0x8000);
    assert_int_equal(hy3_bf16_from_float(INFINITY), 0x7f80);
    assert_int_equal(hy3_bf16_from_float(-INFINITY), 0xff80);
    assert_int_equal(hy3_fp16_from_float(-INFINITY), 0xfc00);
    assert_int_equal(hy3_fp16_from_float(-65519), 0xfbff);
    assert_int_equal(hy3_bf16_from_float(3.4028235e38f), 0x7f80); /* above the largest */
    assert_int_equal(hy3_fp16_from_float(0x1p-25f), 0);           /* a tie with the even zero */
    assert_int_equal(hy3_fp16_from_float(nextafterf(0x1p-25f, 1)), 1);
    for (uint32_t bits = 0x7f800001; bits < 0x80000000;
         bits += 4093) { /* no NaN becomes infinite */
        float nan = hy3_float_from_bits(bits);

        assert_true(isnan(hy3_float_from_bf16(hy3_bf16_from_float(nan))));
        assert_true(isnan(hy3_float_from_fp16(hy3_fp16_from_float(nan))));
    }
}

static void arrays_convert_between_all_types(void **state)
{
    static const hy3_dtype types[] = {HY3_FP32, HY3_BF16, HY3_FP16};
    const float values[5] = {0, 1, -2.5f, 0.125f, -96}; /* exact in every type */
    char from[20], to[20];
    float back[5];

    (void)state;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++) {
            hy3_convert(values, HY3_FP32, from, types[i], 5);
            hy3_convert(from, types[i], to, types[j], 5);
            hy3_convert(to, types[j], back, HY3_FP32, 5);
            assert_memory_equal(back, values, sizeof values);
        }
    assert_int_equal(hy3_dtype_size(HY3_FP32), 4);
    assert_int_equal(hy3_dtype_size(HY3_FP16), 2);
    assert_string_equal(hy3_dtype_name(HY3_BF16), "bf16");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_narrow_number_survives_the_way_through_fp32),
        cmocka_unit_test(every_half_is_what_ieee_754_says),
        cmocka_unit_test(signs_infinities_and_nan_are_kept),
        cmocka_unit_test(arrays_convert_between_all_types),
        cmocka_unit_test(rounding_goes_to_the_nearest_and_ties_to_even),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
