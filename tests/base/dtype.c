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

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_narrow_number_survives_the_way_through_fp32),
        cmocka_unit_test(rounding_goes_to_the_nearest_and_ties_to_even),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
