/* SPDX-License-Identifier: Apache-2.0 */
/* libconfig.c - what the text of a file becomes, where libconfig alone would go wrong. */
#include "base/memory.h"
#include "base/random.h"
#include "config/leaks.h"
#include "config/settings.h"
#include "support/test.h"

#include <sys/stat.h>

static struct hy3_settings settings;
static struct hy3_problems problems;

static void read_bytes(const char *text, size_t size)
{
    hy3_settings_free(&settings);
    problems = (struct hy3_problems){0};
    assert_ok(hy3_libconfig_read(text, size, "run.cfg", &settings, &problems));
}

static void read_text(const char *text)
{
    read_bytes(text, strlen(text));
}

/* The text is refused with exactly this message. */
static void assert_refused(const char *text, const char *message)
{
    read_text(text);
    assert_int_equal(hy3_problems_status(&problems), HY3_EUSAGE);
    assert_string_equal(hy3_error_text(), message);
}

static int release(void **state)
{
    (void)state;
    hy3_settings_free(&settings);
    return 0;
}

static void integers_of_64_bits_keep_their_value(void **state)
{
    static const int64_t wanted[] = {1, -1, 2147483648, -2147483649, INT64_MAX, INT64_MIN, 7, 8};

    (void)state;
    read_text(
        "a = 1; b = -1; c = 2147483648; d = -2147483649; e = 9223372036854775807;\n"
        "f = -9223372036854775808; g = 7L; h = +8");
    assert_int_equal(problems.count, 0);
    assert_int_equal(settings.count, 8);
    for (size_t i = 0; i < 8; i++) {
        assert_int_equal(settings.items[i].type, HY3_VALUE_INT);
        assert_true(settings.items[i].integer == wanted[i]);
    }
}

static void integers_beyond_64_bits_are_refused(void **state)
{
    (void)state;
    assert_refused("a = 1;\nb = 9223372036854775808;\n", "run.cfg:2: the number is too large");
    assert_refused("a = -99999999999999999999L;", "run.cfg:1: the number is too large");
    assert_refused("a = 0x10;", "run.cfg:1: a hexadecimal number; write it in decimal");
}

static void numbers_in_names_texts_and_comments_are_left_alone(void **state)
{
    (void)state;
    read_text(
        "a3000000000 = \"3000000000 \\\" 4000000000\"; # 5000000000\n"
        "/* 6000000000 \" */ b = 1.5e300; // 7000000000 \"\nc = -.5;\nd-3000000000 = true;");
    assert_int_equal(problems.count, 0);
    assert_int_equal(settings.count, 4);
    assert_string_equal(settings.items[0].key, "a3000000000");
    assert_string_equal(settings.items[0].texts.items[0], "3000000000 \" 4000000000");
    assert_true(settings.items[1].real == 1.5e300 && settings.items[2].real == -0.5);
    assert_true(settings.items[3].truth);
    assert_string_equal(settings.items[3].where, "run.cfg:4");
}

/* libconfig would open the named file: a pipe without a writer would hang the job. */
static void include_is_refused_and_nothing_opened(void **state)
{
    char text[2048], pipe[512];

    (void)state;
    snprintf(pipe, sizeof pipe, "%.400s/pipe", hy3_test_directory());
    assert_int_equal(mkfifo(pipe, 0600), 0);
    snprintf(text, sizeof text, "a = 1;\n @Include \"%s\"\n", pipe);
    assert_refused(text, "run.cfg:2: @include is not supported; put all keys into one file");
    snprintf(text, sizeof text, "/*\n@include \"%s\"\n*/ b = \"x@include \\\"%s\"; # @include",
             pipe, pipe);
    read_text(text);
    assert_int_equal(problems.count, 0);
    assert_string_equal(settings.items[0].key, "b");
}

static void bytes_that_end_a_text_early_are_refused(void **state)
{
    (void)state;
    read_bytes("a = 1;\n\n\0b = 2;", 15);
    assert_int_equal(hy3_problems_status(&problems), HY3_EUSAGE);
    assert_string_equal(hy3_error_text(), "run.cfg:3: a NUL byte; this is not a text file");
    assert_refused("a = \"x\\x00y\";", "run.cfg:1: a text must not hold a NUL");
}

static void groups_duplicates_and_syntax_errors_name_their_line(void **state)
{
    (void)state;
    assert_refused("a = 1;\nmodel = {\n b = 1;\n};",
                   "run.cfg:2: 'model' is a group; keys stand by themselves here");
    assert_refused("a = 1;\nb = 2;\na = 3;\n",
                   "run.cfg:3: 'a' is given twice, 1 in line 1 and 3 here; keep one");
    assert_refused("a = \"never closed;\nb = \"2\";\n",
                   "run.cfg:1: a text without its closing quote");
    assert_refused("a = 1;\nb = \"never closed\n\n", "run.cfg:2: a text without its closing quote");
    assert_refused("a = 1;\n/* never closed\n\n*", "run.cfg:2: a comment without its */");
}

/* What people write who know another format, and what they are told. */
static void a_syntax_error_shows_the_line_and_what_to_write(void **state)
{
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"a = 1;\nmodel = models/Hy3; # mine\n",
         "2: syntax error in 'model = models/Hy3;': texts stand in double quotes: model = "
         "\"models/Hy3\";"},
        {"a: 1\nb: cosine",
         "2: syntax error in 'b: cosine': texts stand in double quotes: b = "
         "\"cosine\";"},
        {"a = 'x';",
         "1: syntax error in 'a = 'x';': texts stand in double quotes, not in single "
         "ones"},
        {"{\"a\": 1}",
         "1: syntax error in '{\"a\": 1}': this is JSON; a configuration is lines "
         "key = value;"},
        {"[model]\na = 1",
         "1: syntax error in '[model]': there are no [sections]; a configuration "
         "is lines key = value;"},
        {"---\na: 1",
         "1: syntax error in '---': this is YAML; a configuration is lines key = "
         "value;"},
        {"a = None;",
         "1: syntax error in 'a = None;': there is no None; to keep the default leave "
         "the line out"},
        {"a = yes", "1: syntax error in 'a = yes': write true or false"},
        {"a =\n\nb = 1;",
         "1: syntax error in 'a =': the value is missing; to keep the default "
         "leave the line out"},
        {"a\n", "1: syntax error in 'a': a setting is key = value;"},
        {"a = 3d-out\n",
         "1: syntax error in 'a = 3d-out': '3d-out' is no number; a text stands in "
         "double quotes"},
        {"a = 5 + 3;",
         "1: syntax error in 'a = 5 + 3;': '5 + 3' is no number; a text stands in "
         "double quotes"},
        {"a = b,c;",
         "1: syntax error in 'a = b,c;': a list is [\"a\", \"b\"], its texts in double "
         "quotes"},
        {"a = \"b\", \"c\";",
         "1: syntax error in 'a = \"b\", \"c\";': a list stands in brackets, "
         "[\"a\", \"b\"]"},
        {"a = 1;\n\nb = = 2;\n",
         "3: syntax error in 'b = = 2;': a setting is key = value; with "
         "texts in double quotes and lists as [\"a\", \"b\"]"},
        {"a = [\"x\", 3];", "1: the elements of a list must all be texts in double quotes"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char message[512];

        snprintf(message, sizeof message, "run.cfg:%s", cases[i].message);
        assert_refused(cases[i].text, message);
    }
}

static void the_marks_of_editors_are_known(void **state)
{
    (void)state;
    read_text(
        "\xef\xbb\xbf"
        "a = 1;\r\nb = \"x\";\r\n");
    assert_int_equal(problems.count, 0);
    assert_string_equal(settings.items[0].key, "a");
    assert_string_equal(settings.items[1].texts.items[0], "x");
    assert_refused(
        "\xff\xfe"
        "a",
        "run.cfg:1: this is UTF-16; save it as UTF-8");
    assert_refused(
        "\xfe\xff"
        "a",
        "run.cfg:1: this is UTF-16; save it as UTF-8");
}

static void texts_keep_their_bytes(void **state)
{
    (void)state;
    read_text("a = \"\\\"\\\\\\n\\t\\x7f\xc3\xa9\xe4\xb8\xad\"; b = \"x\" \"y\"; c = \"\";");
    assert_int_equal(settings.count, 3);
    assert_string_equal(settings.items[0].texts.items[0], "\"\\\n\t\x7f\xc3\xa9\xe4\xb8\xad");
    assert_string_equal(settings.items[1].texts.items[0], "xy");
    assert_string_equal(settings.items[2].texts.items[0], "");
}

static void lists_and_arrays_are_lists_of_texts_or_mixed(void **state)
{
    (void)state;
    read_text(
        "a = [\"x\", \"y\"]; b = (\"z\"); c = []; d = (\"x\", 1); e = [1, 2]; f = ((\"x\"));");
    assert_int_equal(settings.count, 6);
    assert_int_equal(settings.items[0].type, HY3_VALUE_LIST);
    assert_int_equal(settings.items[0].texts.count, 2);
    assert_string_equal(settings.items[0].texts.items[1], "y");
    assert_int_equal(settings.items[1].texts.count, 1);
    assert_int_equal(settings.items[2].type, HY3_VALUE_LIST);
    assert_int_equal(settings.items[2].texts.count, 0);
    for (int i = 3; i < 6; i++)
        assert_int_equal(settings.items[i].type, HY3_VALUE_MIXED);
}

static void a_comment_may_be_the_end(void **state)
{
    (void)state;
    read_text("a = 1 # without a line end");
    assert_int_equal(problems.count, 0);
    read_text("");
    assert_int_equal(problems.count, 0);
    read_text("# nothing");
    assert_int_equal(problems.count, 0);
}

static void deep_nesting_is_an_error_not_a_crash(void **state)
{
    enum { DEPTH = 200000 };

    char *text;

    (void)state;
    assert_ok(hy3_alloc(&text, DEPTH + 5, 1));
    memset(text, '(', DEPTH + 4);
    memcpy(text, "a = ", 4);
    read_text(text);
    assert_int_equal(hy3_problems_status(&problems), HY3_EUSAGE);
    hy3_free(text);
}

/* One change: a byte replaced, a piece cut out, doubled, or a word of libconfig put in. */
static size_t change(char *text, size_t size, size_t room, const uint32_t word[4])
{
    static const char *const words[] = {"@include \"/dev/zero\"\n",
                                        "/*",
                                        "\"",
                                        "\\x",
                                        "0x",
                                        "99999999999999",
                                        "1e",
                                        "{",
                                        "(",
                                        "[",
                                        "\n",
                                        "//",
                                        "=",
                                        "-",
                                        "L",
                                        "\\",
                                        "*/",
                                        "}",
                                        ")",
                                        "]"};
    size_t at = word[0] % size, length = word[1] % 9;
    const char *put = words[word[2] % (sizeof words / sizeof *words)];

    if (length > size - at)
        length = size - at;
    switch (word[3] % 4) {
    case 0:
        text[at] = (char)word[1];
        return size;
    case 1:
        memmove(text + at, text + at + length, size - at - length);
        return size > length ? size - length : size;
    case 2:
        length = strlen(put);
        break;
    default:
        put = text + at;
    }
    if (size + length > room)
        return size;
    memmove(text + at + length, text + at, size - at);
    if (word[3] % 4 == 2)
        memcpy(text + at, put, length);
    return size + length;
}

static void a_file_of_very_many_keys_is_refused(void **state)
{
    char *text;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    (void)state;
    assert_non_null(out);
    for (int i = 0; i < 20000; i++)
        fprintf(out, "k%d = true;\n", i);
    assert_int_equal(fclose(out), 0);
    assert_refused(text, "run.cfg:2048: more keys than any configuration has");
    free(text);
}

static void hostile_files_do_no_harm(void **state)
{
    static const char good[] =
        "# a run\nmodel_name_or_path = \"m\"; /* the model */\n"
        "train_data_file = [\"a.jsonl\", \"b\\\"\\x41.jsonl\"];\n"
        "max_samples = 3000000000; learning_rate = 1.5e-5; // peak\n"
        "bf16 = true\nval_size : 0.1\nlist = (\"x\", 1, (2.5, 3L));\n";
    int fine = 0;

    (void)state;
    for (uint64_t round = 0; round < 10000; round++) {
        char *text;
        size_t size = sizeof good - 1;

        assert_ok(hy3_alloc(&text, 1024, 1));
        memcpy(text, good, size);
        for (uint64_t i = 0; i < 1 + round % 8; i++) {
            uint32_t word[4];

            hy3_random(3, HY3_RANDOM_DUMMY, round, i, word);
            size = change(text, size, 1023, word);
        }
        text[size] = '\0';
        read_bytes(text, size);
        fine += problems.count == 0;
        hy3_free(text);
    }
    assert_true(fine > 100 && fine < 9900); /* both ways out were taken */
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(integers_of_64_bits_keep_their_value, release),
        cmocka_unit_test_teardown(integers_beyond_64_bits_are_refused, release),
        cmocka_unit_test_teardown(numbers_in_names_texts_and_comments_are_left_alone, release),
        cmocka_unit_test_teardown(include_is_refused_and_nothing_opened, release),
        cmocka_unit_test_teardown(bytes_that_end_a_text_early_are_refused, release),
        cmocka_unit_test_teardown(a_syntax_error_shows_the_line_and_what_to_write, release),
        cmocka_unit_test_teardown(the_marks_of_editors_are_known, release),
        cmocka_unit_test_teardown(groups_duplicates_and_syntax_errors_name_their_line, release),
        cmocka_unit_test_teardown(texts_keep_their_bytes, release),
        cmocka_unit_test_teardown(lists_and_arrays_are_lists_of_texts_or_mixed, release),
        cmocka_unit_test_teardown(a_comment_may_be_the_end, release),
        cmocka_unit_test_teardown(deep_nesting_is_an_error_not_a_crash, release),
        cmocka_unit_test_teardown(a_file_of_very_many_keys_is_refused, release),
        cmocka_unit_test_teardown(hostile_files_do_no_harm, release),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
