/* SPDX-License-Identifier: Apache-2.0 */
/* span.c - spans against sets of elements, counted one by one. */
#include "base/span.h"

#include "support/test.h"

static bool has(struct hy3_span span, int64_t element)
{
    return element >= span.first && element < hy3_span_end(span);
}

static void an_intersection_has_the_elements_of_both(void **state)
{
    (void)state;
    for (int64_t i = 0; i < 6 * 6 * 6 * 6; i++) {
        struct hy3_span a = {i % 6, i / 6 % 6}, b = {i / 36 % 6, i / 216};
        struct hy3_span both = hy3_span_intersect(a, b);

        assert_true(both.count >= 0);
        for (int64_t element = 0; element < 12; element++)
            assert_int_equal(has(both, element), has(a, element) && has(b, element));
    }
}

static void pieces_follow_each_other_and_end_with_the_span(void **state)
{
    (void)state;
    for (int64_t most = 1; most < 12; most++) {
        struct hy3_span span = {7, 10};
        int64_t done = 0;

        while (done < span.count) {
            struct hy3_span piece = hy3_span_piece(span, done, most);

            assert_int_equal(piece.first, span.first + done);
            assert_true(piece.count == most || hy3_span_end(piece) == hy3_span_end(span));
            assert_true(piece.count > 0 && piece.count <= most);
            done += piece.count;
        }
        assert_int_equal(done, span.count);
    }
}

static void shares_cover_everything_once_and_are_even(void **state)
{
    (void)state;
    for (int64_t count = 0; count < 20; count++)
        for (int64_t ranks = 1; ranks < 8; ranks++) {
            int64_t at = 0;

            for (int64_t rank = 0; rank < ranks; rank++) {
                struct hy3_span share = hy3_span_share(count, rank, ranks);

                assert_int_equal(share.first, at);
                assert_true(share.count == count / ranks || share.count == count / ranks + 1);
                at = hy3_span_end(share);
            }
            assert_int_equal(at, count);
        }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_intersection_has_the_elements_of_both),
        cmocka_unit_test(pieces_follow_each_other_and_end_with_the_span),
        cmocka_unit_test(shares_cover_everything_once_and_are_even),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
