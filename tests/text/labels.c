/* SPDX-License-Identifier: Apache-2.0 */
/* Which tokens are learned. 7 opens an assistant turn, 9 is eos, */
#include "text/labels.h"

#include "support/test.h"

struct sample {
    const char *ids, *labels; /* a digit a token; a dot: not learned */
};

static void check(const struct sample *sample)
{
    size_t count = strlen(sample->ids), labels = 0;
    int32_t ids[64] = {0};
    uint8_t mask[64];

    for (size_t i = 0; i < count; i++) {
        ids[i] = sample->ids[i] - '0';
        labels += sample->labels[i] != '.';
    }
    assert_int_equal(hy3_labels_mark(ids, count, 7, 9, mask), labels);
    for (size_t i = 0; i < count; i++)
        assert_int_equal(mask[i], sample->labels[i] != '.');
}

static void an_answer_is_learned_up_to_and_with_its_eos(void **state)
{
    (void)state;
    check(&(struct sample){"1673490", "...349."});
    check(&(struct sample){"1673967599", "...39..59."});
}

static void the_nth_assistant_meets_the_nth_eos(void **state)
{
    (void)state;
    check(&(struct sample){"197379", ".....9"}); /* an eos before the first answer shifts all */
    check(&(struct sample){"7379", ".379"});     /* two answers, one eos */
    check(&(struct sample){"173944", "..39.."});
    check(&(struct sample){"77399", ".7399"});
}

static void nothing_is_learned_without_a_pair(void **state)
{
    (void)state;
    check(&(struct sample){"", ""});
    check(&(struct sample){"1345", "...."});
    check(&(struct sample){"1734", "...."});
    check(&(struct sample){"1934", "...."});
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_answer_is_learned_up_to_and_with_its_eos),
        cmocka_unit_test(the_nth_assistant_meets_the_nth_eos),
        cmocka_unit_test(nothing_is_learned_without_a_pair),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
