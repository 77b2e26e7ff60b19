/* SPDX-License-Identifier: Apache-2.0 */
/* decide.c - every row of the table of continuing, starting over and refusing. */
#include "train/decide.h"

#include "support/test.h"

/* A run of 10 steps: cut short after a checkpoint of step 6; finished, with a checkpoint of its
 * last step; finished with save_only_model; cut short with save_only_model. */
#define CUT_SHORT .has_results = true, .newest = 6, .planned = 10
#define ENDED     .has_results = true, .newest = 10, .planned = 10, .is_finished = true, .done = 10
#define ENDED_EARLY                                                                           \
    .has_results = true, .newest = 6, .planned = 10, .is_finished = true, .ends_early = true, \
    .done = 6
#define ENDED_MODELS \
    .has_results = true, .newest = -1, .planned = 10, .is_finished = true, .done = 10
#define CUT_MODELS .has_results = true, .newest = -1, .planned = 10, .saves_models = true
#define CUT_LOST   .has_results = true, .newest = -1, .planned = 10 /* without any state.h5 */
#define NOTHING    .newest = -1
#define OVERWRITES .overwrite = true

struct row {
    struct hy3_situation s;
    enum hy3_decision decision;
};

static void check(const struct row *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct hy3_situation s = rows[i].s;

        if (s.steps == 0)
            s.steps = 10;
        if (hy3_decide(&s) != rows[i].decision)
            fail_msg("row %zu: %d, not %d", i, (int)hy3_decide(&s), (int)rows[i].decision);
    }
}

#define CHECK(rows) check(rows, sizeof(rows) / sizeof *(rows))

static void an_empty_directory_starts(void **state)
{
    static const struct row rows[] = {
        {{NOTHING}, HY3_START},
        {{NOTHING, OVERWRITES}, HY3_START},
        {{NOTHING, .from = HY3_FROM_START}, HY3_START},
        {{NOTHING, .from = HY3_FROM_THERE}, HY3_START},
        {{NOTHING, .planned = 10, .steps = 12}, HY3_START}, /* it wrote nothing yet */
    };

    (void)state;
    CHECK(rows);
}

static void an_unfinished_run_with_the_same_settings_continues_whatever_overwrite_says(void **state)
{
    static const struct row rows[] = {
        {{CUT_SHORT}, HY3_CONTINUE},
        {{CUT_SHORT, OVERWRITES}, HY3_CONTINUE},
        {{CUT_MODELS}, HY3_SET_ASIDE}, /* no state to continue from */
        {{CUT_MODELS, OVERWRITES}, HY3_SET_ASIDE},
        {{CUT_LOST}, HY3_REFUSE_STATE}, /* what is damaged is told, not replaced */
        {{CUT_LOST, OVERWRITES}, HY3_SET_ASIDE},
    };

    (void)state;
    CHECK(rows);
}

static void a_finished_run_with_the_same_settings_has_nothing_to_do(void **state)
{
    static const struct row rows[] = {
        {{ENDED}, HY3_FINISHED},
        {{ENDED, OVERWRITES}, HY3_FINISHED},
        {{ENDED_MODELS}, HY3_FINISHED},
        {{ENDED, .from = HY3_FROM_START}, HY3_SET_ASIDE},
        {{ENDED, .from = HY3_FROM_START, OVERWRITES}, HY3_SET_ASIDE},
    };

    (void)state;
    CHECK(rows);
}

static void what_early_stopping_ended_is_finished_until_something_changes(void **state)
{
    static const struct row rows[] = {
        {{ENDED_EARLY}, HY3_FINISHED},
        {{ENDED_EARLY, OVERWRITES}, HY3_FINISHED},
        {{ENDED_EARLY, .distance = HY3_CHANGED}, HY3_CONTINUE}, /* more patience */
        {{ENDED_EARLY, .steps = 20}, HY3_CONTINUE},
        {{ENDED_EARLY, .steps = 6}, HY3_REFUSE_CHANGED},
        {{ENDED_EARLY, .steps = 5}, HY3_BEHIND},
        {{ENDED_EARLY, .distance = HY3_OTHER}, HY3_REFUSE_OTHER},
        {{ENDED_EARLY, .distance = HY3_CHANGED, OVERWRITES}, HY3_SET_ASIDE},
    };

    (void)state;
    CHECK(rows);
}

static void more_steps_continue_and_fewer_do_nothing(void **state)
{
    static const struct row rows[] = {
        {{ENDED, .steps = 20}, HY3_CONTINUE},
        {{CUT_SHORT, .steps = 20}, HY3_CONTINUE},
        {{ENDED, .steps = 8}, HY3_BEHIND},
        {{CUT_SHORT, .steps = 5}, HY3_BEHIND},
        {{CUT_SHORT, .steps = 8}, HY3_CONTINUE},
        {{CUT_SHORT, .steps = 6}, HY3_CONTINUE},
        {{ENDED_MODELS, .steps = 8}, HY3_BEHIND},
        {{ENDED_MODELS, .steps = 20}, HY3_REFUSE_STATE},
        {{CUT_MODELS, .steps = 20}, HY3_REFUSE_STATE},
        {{ENDED, .steps = 20, OVERWRITES}, HY3_SET_ASIDE},
        {{ENDED, .steps = 8, OVERWRITES}, HY3_SET_ASIDE},
    };

    (void)state;
    CHECK(rows);
}

static void settings_that_may_change_continue_or_start_over(void **state)
{
    static const struct row rows[] = {
        {{CUT_SHORT, .distance = HY3_CHANGED}, HY3_CONTINUE},
        {{CUT_SHORT, .distance = HY3_CHANGED, OVERWRITES}, HY3_SET_ASIDE},
        {{ENDED, .distance = HY3_CHANGED}, HY3_REFUSE_CHANGED},
        {{ENDED, .distance = HY3_CHANGED, .steps = 20}, HY3_CONTINUE},
        {{ENDED, .distance = HY3_CHANGED, OVERWRITES}, HY3_SET_ASIDE},
        {{CUT_MODELS, .distance = HY3_CHANGED}, HY3_REFUSE_STATE},
    };

    (void)state;
    CHECK(rows);
}

static void another_run_is_refused_or_set_aside(void **state)
{
    static const struct row rows[] = {
        {{CUT_SHORT, .distance = HY3_OTHER}, HY3_REFUSE_OTHER},
        {{ENDED, .distance = HY3_OTHER}, HY3_REFUSE_OTHER},
        {{ENDED, .distance = HY3_OTHER, .steps = 20}, HY3_REFUSE_OTHER},
        {{CUT_SHORT, .distance = HY3_OTHER, OVERWRITES}, HY3_SET_ASIDE},
        {{ENDED, .distance = HY3_OTHER, OVERWRITES}, HY3_SET_ASIDE},
        {{ENDED, .distance = HY3_OTHER, .from = HY3_FROM_START}, HY3_REFUSE_OTHER},
    };

    (void)state;
    CHECK(rows);
}

static void starting_over_an_unfinished_run_needs_overwrite(void **state)
{
    static const struct row rows[] = {
        {{CUT_SHORT, .from = HY3_FROM_START}, HY3_REFUSE_NONE},
        {{CUT_SHORT, .from = HY3_FROM_START, OVERWRITES}, HY3_SET_ASIDE},
        {{ENDED, .from = HY3_FROM_START, .steps = 20}, HY3_REFUSE_NONE},
    };

    (void)state;
    CHECK(rows);
}

static void a_named_checkpoint_goes_back_here_and_starts_elsewhere(void **state)
{
    static const struct row rows[] = {
        {{CUT_SHORT, .from = HY3_FROM_HERE, .named = 2}, HY3_BRANCH},
        {{ENDED, .from = HY3_FROM_HERE, .named = 2}, HY3_BRANCH},
        {{ENDED, .from = HY3_FROM_HERE, .named = 2, .distance = HY3_CHANGED}, HY3_BRANCH},
        {{ENDED, .from = HY3_FROM_HERE, .named = 2, .distance = HY3_OTHER}, HY3_REFUSE_OTHER},
        {{ENDED, .from = HY3_FROM_HERE, .named = 2, .distance = HY3_OTHER, OVERWRITES}, HY3_BRANCH},
        {{ENDED, .from = HY3_FROM_HERE, .named = 8, .steps = 4}, HY3_BEHIND},
        {{ENDED, .from = HY3_FROM_THERE}, HY3_REFUSE_OTHER},
        {{ENDED, .from = HY3_FROM_THERE, OVERWRITES}, HY3_SET_ASIDE},
    };

    (void)state;
    CHECK(rows);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_directory_starts),
        cmocka_unit_test(
            an_unfinished_run_with_the_same_settings_continues_whatever_overwrite_says),
        cmocka_unit_test(a_finished_run_with_the_same_settings_has_nothing_to_do),
        cmocka_unit_test(what_early_stopping_ended_is_finished_until_something_changes),
        cmocka_unit_test(more_steps_continue_and_fewer_do_nothing),
        cmocka_unit_test(settings_that_may_change_continue_or_start_over),
        cmocka_unit_test(another_run_is_refused_or_set_aside),
        cmocka_unit_test(starting_over_an_unfinished_run_needs_overwrite),
        cmocka_unit_test(a_named_checkpoint_goes_back_here_and_starts_elsewhere),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
