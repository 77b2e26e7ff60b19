/* SPDX-License-Identifier: Apache-2.0 */
/* options.c - the table keeps its own rules, and what is derived from it: hints, help,
 * reference. */
#include "config/options.h"

#include "base/memory.h"
#include "config/assign.h"
#include "config/help.h"
#include "config/nearest.h"
#include "support/test.h"

#include <ctype.h>
#include <math.h>

/* Calls `check` for every option. */
static void for_each(void (*check)(const struct hy3_option *o))
{
    int keys = 0;

    for (const struct hy3_option *o = hy3_options; o->key; o++)
        if (o->type != HY3_GROUP) {
            check(o);
            keys++;
        }
    assert_true(keys > 50);
}

static void check_names(const struct hy3_option *o)
{
    const char *list = o->aliases ? o->aliases : "", *word;
    size_t length;

    assert_ptr_equal(hy3_option_find(hy3_options, o->key), o);
    while ((word = hy3_option_word(&list, &length))) {
        char name[64];

        snprintf(name, sizeof name, "%.*s", (int)length, word);
        assert_ptr_equal(hy3_option_find(hy3_options, name), o);
    }
}

static void every_key_and_alias_is_unique(void **state)
{
    (void)state;
    for_each(check_names);
    assert_null(hy3_option_find(hy3_options, "data")); /* a heading is no key */
    assert_null(hy3_option_find(hy3_options, ""));
    assert_int_equal(hy3_option_find(hy3_options, "cutoff_len")->offset,
                     offsetof(struct hy3_config, max_seq_length));
}

static void check_fields(const struct hy3_option *o)
{
    size_t size = sizeof(char *);

    if (o->type == HY3_BOOL)
        size = sizeof(bool);
    if (o->type == HY3_COUNT || o->type == HY3_REAL)
        size = 8;
    if (o->type == HY3_CHOICE)
        size = sizeof(int);
    if (o->type == HY3_LIST)
        size = sizeof(struct hy3_list);
    for (const struct hy3_option *p = hy3_options; p->key; p++)
        assert_false(p != o && p->type != HY3_GROUP && p->offset >= o->offset &&
                     p->offset < o->offset + size);
}

static void no_two_keys_share_a_field(void **state)
{
    (void)state;
    for_each(check_fields);
}

static void check_help(const struct hy3_option *o)
{
    size_t length = strlen(o->help);

    assert_true(length > 5 && length < 110);
    assert_true(o->help[length - 1] != '.' && !strpbrk(o->help, "\n|`\\\""));
    assert_true(islower((unsigned char)o->help[0]) || isupper((unsigned char)o->help[1]) ||
                strncmp(o->help, "AdamW", 5) == 0);
}

static void every_help_is_one_plain_line(void **state)
{
    (void)state;
    for_each(check_help);
}

static void check_default(const struct hy3_option *o)
{
    if (o->type == HY3_COUNT)
        assert_true(o->count.initial >= (o->count.automatic ? 0 : o->count.low) &&
                    (o->count.high == 0 || o->count.initial <= o->count.high));
    if (o->type == HY3_REAL)
        assert_true(o->real.high == 0 || o->real.initial <= o->real.high);
    if (o->type == HY3_CHOICE && o->only && *o->only)
        assert_true(hy3_option_has_word(o->only, o->words[0]));
}

static void every_default_is_in_its_range_and_available(void **state)
{
    (void)state;
    for_each(check_default);
}

static void near_words_are_found_and_far_ones_not(void **state)
{
    (void)state;
    assert_string_equal(hy3_option_nearest(hy3_options, "learning_rat"), "learning_rate");
    assert_string_equal(hy3_option_nearest(hy3_options, "laerning_rate"), "learning_rate");
    assert_string_equal(hy3_option_nearest(hy3_options, "cutof_len"), "cutoff_len");
    assert_string_equal(hy3_option_nearest(hy3_options, "max_seq_len"), "max_seq_length");
    assert_string_equal(hy3_option_nearest(hy3_options, "sede"), "seed");
    assert_null(hy3_option_nearest(hy3_options, "x"));
    assert_null(hy3_option_nearest(hy3_options, ""));
    assert_null(hy3_option_nearest(hy3_options, "entirely_something_else"));
}

static void an_exchange_of_neighbours_counts_once(void **state)
{
    char lengthy[300];

    (void)state;
    assert_int_equal(hy3_edit_distance("", ""), 0);
    assert_int_equal(hy3_edit_distance("abc", ""), 3);
    assert_int_equal(hy3_edit_distance("abcd", "abdc"), 1);
    assert_int_equal(hy3_edit_distance("kitten", "sitting"), 3);
    assert_int_equal(hy3_edit_distance("ca", "abc"), 3); /* the restricted distance */
    memset(lengthy, 'a', sizeof lengthy);
    lengthy[sizeof lengthy - 1] = '\0';
    assert_int_equal(hy3_edit_distance(lengthy, "a"), 62);
}

static void assert_splits(const char *word, int count, const char *first, const char *last)
{
    struct hy3_list texts = {0};
    bool valid;

    assert_ok(hy3_word_split(word, &texts, &valid));
    assert_true(valid);
    assert_int_equal(texts.count, count);
    if (count > 0) {
        assert_string_equal(texts.items[0], first);
        assert_string_equal(texts.items[count - 1], last);
    }
    hy3_list_free(&texts);
}

static void a_word_is_split_into_texts(void **state)
{
    static const char *const wrong[] = {"\"a", "[\"a]", "\"a\"b", "[\"a\" \"b\"]", "a,\""};

    (void)state;
    assert_splits("", 0, NULL, NULL);
    assert_splits("[]", 0, NULL, NULL);
    assert_splits("a", 1, "a", "a");
    assert_splits("a,b,c", 3, "a", "c");
    assert_splits("[a, b]", 2, "a", "b");
    assert_splits("[\"a\", \"b,c\"]", 2, "a", "b,c");
    assert_splits("\"a \\\" \\\\ ,\"", 1, "a \" \\ ,", "a \" \\ ,");
    assert_splits(" a b , c=d ", 2, "a b", "c=d");
    assert_splits("a,", 2, "a", "");
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct hy3_list texts = {0};
        bool valid = true;

        assert_ok(hy3_word_split(wrong[i], &texts, &valid));
        assert_false(valid);
        hy3_list_free(&texts);
    }
}

static void a_list_grows_to_any_length(void **state)
{
    struct hy3_list list = {0};

    (void)state;
    for (int i = 0; i < 1000; i++) {
        char text[16];

        snprintf(text, sizeof text, "%d", i);
        assert_ok(hy3_list_add(&list, text, strlen(text)));
    }
    assert_int_equal(list.count, 1000);
    for (int i = 0; i < 1000; i++)
        assert_int_equal(strtol(list.items[i], NULL, 10), i);
    hy3_list_free(&list);
}

static void numbers_are_written_short_and_exact(void **state)
{
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0.1, "0.1"},
                 {1e-5, "1e-05"},
                 {3, "3"},
                 {1.0 / 3, "0.3333333333333333"},
                 {2e-7, "2e-07"},
                 {123456789.0, "123456789"},
                 {0x1p-1022, "2.2250738585072014e-308"}};
    const struct hy3_option *o = hy3_option_find(hy3_options, "weight_decay");
    struct hy3_config config = {0};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text;

        config.weight_decay = cases[i].value;
        assert_ok(hy3_option_format(o, &config, &text));
        assert_string_equal(text, cases[i].text);
        assert_true(strtod(text, NULL) == cases[i].value);
        hy3_free(text);
    }
}

static void help_fits_100_columns_and_names_every_key(void **state)
{
    char *text = NULL;
    size_t size, column = 0;
    FILE *out = open_memstream(&text, &size);
    struct hy3_config config;
    const struct hy3_option none = {.key = NULL};
    const struct hy3_usage usage = {"hy3_sft", "Does it.", &none, &config, true};

    (void)state;
    assert_ok(hy3_help_write(out, &usage));
    fclose(out);
    assert_memory_equal(text, "usage: hy3_sft CONFIG [key=value ...]\nDoes it.\n", 47);
    for (const char *p = text; *p; p++) {
        column = *p == '\n' ? 0 : column + 1;
        assert_true(column <= 100);
    }
    for (const struct hy3_option *o = hy3_options; o->key; o++) {
        char line[80];

        snprintf(line, sizeof line, o->type == HY3_GROUP ? "\n\n%s\n" : "\n  %s ", o->key);
        if (!strstr(text, line)) {
            snprintf(line, sizeof line, "\n  %s\n", o->key);
            assert_non_null(strstr(text, line));
        }
    }
    free(text);
}

/* The three sources of exit codes say the same: HY3_STATUSES, the manual, hy3_exit_code. */
static void the_manual_lists_every_exit_code_once(void **state)
{
    static const struct {
        int code;
        const char *meaning;
    } rows[] = {

#define X(name, code, meaning) {code, meaning},
        HY3_STATUSES(X)
#undef X
    };
    char *text = NULL, line[32];
    size_t size;
    FILE *out = open_memstream(&text, &size);

    (void)state;
    hy3_reference_write_exit(out, "hy3_sft");
    fclose(out);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *found;

        assert_int_equal(hy3_exit_code((hy3_status)i), rows[i].code);
        snprintf(line, sizeof line, "\n.B %d\n", rows[i].code);
        assert_non_null(found = strstr(text, line));
        assert_null(strstr(found + 1, line));
        assert_non_null(strstr(found, rows[i].meaning));
    }
    free(text);
}

/* A program that computes on one rank alone loses no other, and trains nothing. */
static void the_manual_lists_only_codes_that_the_program_can_return(void **state)
{
    static const struct {
        const char *program, *has, *has_not;
    } cases[] = {
        {"hy3_plan", "0 1 2 75", "3 4"},  {"hy3_generate", "0 1 2 75", "3 4"},
        {"hy3_check", "0 1 2 4 75", "3"}, {"hy3_merge", "0 1 2 3 4 75", ""},
        {"hy3_sft", "0 1 2 3 4 75", ""},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *lists[] = {cases[i].has, cases[i].has_not}, *word;
        char *text = NULL, line[32];
        size_t size, length;
        FILE *out = open_memstream(&text, &size);

        hy3_reference_write_exit(out, cases[i].program);
        fclose(out);
        for (int has_not = 0; has_not < 2; has_not++)
            while ((word = hy3_option_word(&lists[has_not], &length))) {
                snprintf(line, sizeof line, "\n.B %.*s\n", (int)length, word);
                assert_int_equal(strstr(text, line) == NULL, has_not);
            }
        free(text);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_key_and_alias_is_unique),
        cmocka_unit_test(no_two_keys_share_a_field),
        cmocka_unit_test(every_help_is_one_plain_line),
        cmocka_unit_test(every_default_is_in_its_range_and_available),
        cmocka_unit_test(near_words_are_found_and_far_ones_not),
        cmocka_unit_test(an_exchange_of_neighbours_counts_once),
        cmocka_unit_test(a_word_is_split_into_texts),
        cmocka_unit_test(a_list_grows_to_any_length),
        cmocka_unit_test(numbers_are_written_short_and_exact),
        cmocka_unit_test(help_fits_100_columns_and_names_every_key),
        cmocka_unit_test(the_manual_lists_every_exit_code_once),
        cmocka_unit_test(the_manual_lists_only_codes_that_the_program_can_return),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
