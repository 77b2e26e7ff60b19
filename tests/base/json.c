/* SPDX-License-Identifier: Apache-2.0 */
/* json.c - typed access to JSON: what is refused, and with which words. */
#include "base/json.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "support/test.h"

static json_t *parsed(const char *text)
{
    json_t *value;

    assert_ok(hy3_json_parse(text, strlen(text), "x.json", &value));
    return value;
}

static void a_syntax_error_has_line_and_column(void **state)
{
    json_t *value;

    (void)state;
    assert_fails(HY3_EFORMAT, "x.json:2:7: not valid JSON",
                 hy3_json_parse("{\n \"a\": }", 9, "x.json", &value));
    assert_null(value);
    assert_fails(HY3_EFORMAT, "x.json", hy3_json_parse("", 0, "x.json", &value));
    assert_fails(HY3_EFORMAT, "x.json", hy3_json_parse("{\"a\": \"\xff\"}", 10, "x.json", &value));
    assert_fails(HY3_EFORMAT, "x.json", hy3_json_parse("{} {}", 5, "x.json", &value));
}

static void a_byte_order_mark_and_a_nul_escape_are_legal(void **state)
{
    json_t *value = parsed("\xef\xbb\xbf{\"a\": \"x\\u0000y\"}");

    (void)state;
    assert_int_equal(json_string_length(json_object_get(value, "a")), 3);
    json_decref(value);
}

static void deep_nesting_is_refused(void **state)
{
    enum { DEPTH = 100000 };

    char *text;
    json_t *value;

    (void)state;
    assert_ok(hy3_alloc(&text, DEPTH, 1));
    memset(text, '[', DEPTH);
    assert_fails(HY3_EFORMAT, "x.json", hy3_json_parse(text, DEPTH, "x.json", &value));
    hy3_free(text);
}

/* A text of `count` times `unit` in a list. */
static hy3_status parse_many(const char *unit, size_t count)
{
    size_t length = strlen(unit), size = count * length + 3;
    char *text = test_malloc(size);
    json_t *value = NULL;
    hy3_status status;

    text[0] = '[';
    for (size_t i = 0; i < count; i++)
        memcpy(text + 1 + i * length, unit, length);
    memcpy(text + size - 2, "0]", 2);
    status = hy3_json_parse(text, size, "x.json", &value);
    json_decref(value);
    test_free(text);
    return status;
}

static void values_out_of_proportion_are_refused(void **state)
{
    (void)state;
    assert_fails(HY3_EFORMAT, "x.json: its JSON values would take about 6",
                 parse_many("[],", 2 << 20));
    assert_fails(HY3_EFORMAT, "x.json: its JSON values", parse_many("{},", 5 << 18));
    assert_ok(parse_many("[\"a\",\"b\"],", 600 * 1000)); /* the merges of a large tokenizer */
    assert_ok(parse_many("\"[],[],[],[],\\\"{}{}{}{}{}\",", 200 * 1000)); /* texts */
}

static void integers_are_integers_in_range(void **state)
{
    json_t *v = parsed("{\"a\": 5, \"b\": 5.0, \"c\": null, \"d\": \"5\", \"e\": true}");
    int64_t n = 0;

    (void)state;
    assert_ok(hy3_json_int(v, "a", "x.json", 5, 5, &n));
    assert_int_equal(n, 5);
    assert_fails(HY3_EFORMAT, "x.json: 'a' is 5, it must be 6 to 7",
                 hy3_json_int(v, "a", "x.json", 6, 7, &n));
    assert_fails(HY3_EFORMAT, "x.json: 'b' must be an integer",
                 hy3_json_int(v, "b", "x.json", 0, 9, &n));
    assert_fails(HY3_EFORMAT, "x.json: the key 'c' is missing",
                 hy3_json_int(v, "c", "x.json", 0, 9, &n));
    assert_fails(HY3_EFORMAT, "'d' must be an integer",
                 hy3_json_int_or(v, "d", "x.json", 0, 9, 1, &n));
    assert_fails(HY3_EFORMAT, "'e' must be an integer",
                 hy3_json_int_or(v, "e", "x.json", 0, 9, 1, &n));
    assert_ok(hy3_json_int_or(v, "c", "x.json", 0, 9, 8, &n));
    assert_int_equal(n, 8);
    assert_ok(hy3_json_int_or(v, "none", "x.json", 0, 9, 7, &n));
    assert_int_equal(n, 7);
    json_decref(v);
}

static void reals_truths_and_texts_keep_their_types(void **state)
{
    json_t *v = parsed("{\"a\": 5, \"b\": 0.5, \"c\": \"t\", \"d\": true, \"e\": null}");
    double x = 0;
    bool truth = false;
    const char *text = NULL;

    (void)state;
    assert_ok(hy3_json_real_or(v, "a", "x.json", 1, &x));
    assert_true(x == 5);
    assert_ok(hy3_json_real_or(v, "e", "x.json", 2.5, &x));
    assert_true(x == 2.5);
    assert_fails(HY3_EFORMAT, "x.json: 'c' must be a number",
                 hy3_json_real_or(v, "c", "x.json", 1, &x));
    assert_ok(hy3_json_bool_or(v, "d", "x.json", false, &truth));
    assert_true(truth);
    assert_ok(hy3_json_bool_or(v, "none", "x.json", false, &truth));
    assert_false(truth);
    assert_fails(HY3_EFORMAT, "x.json: 'a' must be true or false",
                 hy3_json_bool_or(v, "a", "x.json", true, &truth));
    assert_ok(hy3_json_text(v, "c", "x.json", &text));
    assert_string_equal(text, "t");
    assert_fails(HY3_EFORMAT, "x.json: 'b' must be text", hy3_json_text(v, "b", "x.json", &text));
    assert_fails(HY3_EFORMAT, "x.json: the key 'e' is missing",
                 hy3_json_text(v, "e", "x.json", &text));
    json_decref(v);
}

static void a_file_is_written_and_read_back(void **state)
{
    char path[HY3_PATH_MAX], *text;
    json_t *value = parsed("{\"b\": [1, \"\xc3\xa9\"], \"a\": 0.1}"), *again;
    size_t size;

    (void)state;
    snprintf(path, sizeof path, "%.4000s/x.json", hy3_test_directory());
    assert_ok(hy3_json_write(path, value));
    assert_ok(hy3_json_read(path, 1000, &again));
    assert_true(json_equal(value, again));
    json_decref(again);
    assert_fails(HY3_EFORMAT, "more than", hy3_json_read(path, 5, &again));
    assert_ok(hy3_file_read(path, 1000, &text, &size));
    assert_true(size > 2 && text[size - 2] == '}' && text[size - 1] == '\n');
    hy3_free(text);
    json_decref(value);
    assert_ok(hy3_output_replace(path, "[1]", 3));
    assert_fails(HY3_EFORMAT, "the top level must be an object", hy3_json_read(path, 1000, &again));
    assert_null(again);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_syntax_error_has_line_and_column),
        cmocka_unit_test(a_byte_order_mark_and_a_nul_escape_are_legal),
        cmocka_unit_test(deep_nesting_is_refused),
        cmocka_unit_test(values_out_of_proportion_are_refused),
        cmocka_unit_test(integers_are_integers_in_range),
        cmocka_unit_test(reals_truths_and_texts_keep_their_types),
        cmocka_unit_test(a_file_is_written_and_read_back),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
