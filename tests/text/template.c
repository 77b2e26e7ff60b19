/* SPDX-License-Identifier: Apache-2.0 */
/* The golden template cases, the golden data set, and what they leave out. */
#include "text/template.h"

#include "base/file.h"
#include "base/memory.h"
#include "support/test.h"
#include "text/labels.h"
#include "text/pyjson.h"
#include "text/tokenizer.h"

struct dialect {
    struct hy3_tokenizer *tokenizer;
    json_t *golden; /* template_cases*.json */
};

static void open_dialect(struct dialect *dialect, const char *tokenizer, const char *cases)
{
    assert_ok(hy3_tokenizer_open(hy3_golden(tokenizer), &dialect->tokenizer));
    dialect->golden = hy3_golden_json(cases);
}

static int open_both(void **state)
{
    static struct dialect both[2];

    open_dialect(&both[0], "a/tokenizer", "a/template_cases.json");
    open_dialect(&both[1], "a/tokenizer-final", "a/template_cases_final.json");
    *state = both;
    return 0;
}

static int close_both(void **state)
{
    struct dialect *both = *state;

    for (int i = 0; i < 2; i++) {
        hy3_tokenizer_close(both[i].tokenizer);
        json_decref(both[i].golden);
    }
    return 0;
}

static hy3_status parse(const json_t *document, struct hy3_conversation **out)
{
    char *line = json_dumps(document, JSON_COMPACT);
    hy3_status status = hy3_conversation_parse(line, strlen(line), out);

    free(line);
    return status;
}

static void assert_same_ids(const char *name, const json_t *want, const struct hy3_ids *ids)
{
    bool same = json_array_size(want) == ids->count;

    for (size_t i = 0; same && i < ids->count; i++)
        same = json_integer_value(json_array_get(want, i)) == ids->data[i];
    if (!same)
        fail_msg("other ids in '%s'", name);
}

/* labels: -100 or the id */
static void assert_same_labels(const char *name, const json_t *want, const struct hy3_ids *ids,
                               const uint8_t *mask)
{
    for (size_t i = 0; i < json_array_size(want); i++)
        if (json_integer_value(json_array_get(want, i)) != (mask[i] ? ids->data[i] : -100))
            fail_msg("another label %zu in '%s'", i, name);
}

static void mark(struct hy3_tokenizer *tokenizer, const struct hy3_ids *ids, uint8_t *mask)
{
    const struct hy3_specials *specials = hy3_tokenizer_specials(tokenizer);

    hy3_labels_mark(ids->data, ids->count, specials->assistant, specials->eos, mask);
}

static void check_sft(struct dialect *dialect, const char *name, const json_t *row,
                      struct hy3_ids *ids)
{
    const json_t *cut = json_object_get(row, "truncated");
    size_t limit = (size_t)json_integer_value(json_object_get(cut, "max_seq_length"));
    uint8_t *mask = test_malloc(ids->count + 1);

    mark(dialect->tokenizer, ids, mask);
    assert_int_equal(json_array_size(json_object_get(row, "labels")), ids->count);
    assert_same_labels(name, json_object_get(row, "labels"), ids, mask);
    if (ids->count > limit)
        ids->count = limit;
    assert_same_ids(name, json_object_get(cut, "ids"), ids);
    assert_same_labels(name, json_object_get(cut, "labels"), ids, mask);
    test_free(mask);
}

static int flag(const json_t *kwargs, const char *key, int absent)
{
    const json_t *value = json_object_get(kwargs, key);

    return value ? json_is_true(value) : absent;
}

/* The conversation and options of a row; kwargs that belong to the line go into it. */
static json_t *document_of(const json_t *row, struct hy3_template_options *options)
{
    json_t *kwargs = json_object_get(row, "kwargs"), *document = json_object();
    const char *keep = json_object_get(kwargs, "preserved_thinking") ? "preserved_thinking"
                                                                     : "interleaved_thinking";

    json_object_set(document, "messages", json_object_get(row, "messages"));
    if (json_object_get(row, "reasoning_effort"))
        json_object_set(document, "reasoning_effort", json_object_get(row, "reasoning_effort"));
    if (json_object_get(kwargs, "reasoning_effort"))
        json_object_set(document, "reasoning_effort", json_object_get(kwargs, "reasoning_effort"));
    if (json_object_get(kwargs, "tools"))
        json_object_set(document, "tools", json_object_get(kwargs, "tools"));
    options->is_training = !kwargs || flag(kwargs, "is_training", 0);
    options->add_generation_prompt = flag(kwargs, "add_generation_prompt", 0);
    options->raw_last_assistant = flag(kwargs, "raw_last_assistant", 0);
    options->retry_tool_call = json_object_get(kwargs, "fallback_strategy") != NULL;
    options->keep_thinking = flag(kwargs, keep, -1);
    return document;
}

static void check_row(struct dialect *dialect, const json_t *row)
{
    const char *name = json_string_value(json_object_get(row, "name"));
    const json_t *want = json_object_get(row, "text");
    struct hy3_template_options options = {0};
    json_t *document = document_of(row, &options);
    struct hy3_conversation *conversation = NULL;
    struct hy3_text text = {0};
    struct hy3_ids ids = {0};
    hy3_status status = parse(document, &conversation);

    if (status != HY3_OK && json_is_true(json_object_get(row, "may_reject")))
        goto done;
    assert_ok(status);
    assert_ok(hy3_template_render(conversation, hy3_tokenizer_dialect(dialect->tokenizer), &options,
                                  &text));
    if (text.size != json_string_length(want) ||
        memcmp(text.data, json_string_value(want), text.size) != 0)
        fail_msg("another text in '%s': %.*s", name, (int)text.size, text.data);
    assert_ok(hy3_tokenizer_encode(dialect->tokenizer, text.data, text.size, false, &ids));
    assert_same_ids(name, json_object_get(row, "ids"), &ids);
    if (strcmp(json_string_value(json_object_get(row, "mode")), "sft") == 0)
        check_sft(dialect, name, row, &ids);
done:
    json_decref(document);
    hy3_conversation_free(conversation);
    hy3_free(text.data);
    hy3_free(ids.data);
}

static void check_rows(struct dialect *dialect)
{
    const json_t *row;
    size_t i;

    assert_true(json_array_size(json_object_get(dialect->golden, "cases")) > 90);
    json_array_foreach(json_object_get(dialect->golden, "cases"), i, row) check_row(dialect, row);
}

static void preview_cases_give_the_golden_text_ids_and_labels(void **state)
{
    check_rows(&((struct dialect *)*state)[0]);
}

static void final_cases_give_the_golden_text_ids_and_labels(void **state)
{
    check_rows(&((struct dialect *)*state)[1]);
}

static void what_the_template_raises_on_is_refused(void **state)
{
    struct dialect *both = *state;
    struct hy3_conversation *conversation;
    const json_t *row;
    size_t i;

    for (int d = 0; d < 2; d++) {
        assert_true(json_array_size(json_object_get(both[d].golden, "error_cases")) > 0);
        json_array_foreach(json_object_get(both[d].golden, "error_cases"), i, row)
        {
            const char *name = json_string_value(json_object_get(row, "name"));

            if (strcmp(name, "arguments_as_json_text") == 0) { /* form.h reads what it says */
                assert_ok(parse(json_object_get(row, "sample"), &conversation));
                hy3_conversation_free(conversation);
            } else {
                assert_fails(HY3_EFORMAT, "", parse(json_object_get(row, "sample"), &conversation));
            }
        }
    }
}

static void check_sample(struct dialect *dialect, const char *line, size_t size, const json_t *want,
                         size_t limit)
{
    const struct hy3_template_options options = {.is_training = true};
    struct hy3_conversation *conversation;
    struct hy3_text text = {0};
    struct hy3_ids ids = {0};
    uint8_t mask[4096];

    assert_ok(hy3_conversation_parse(line, size, &conversation));
    assert_ok(hy3_template_render(conversation, HY3_DIALECT_PREVIEW, &options, &text));
    assert_ok(hy3_tokenizer_encode(dialect->tokenizer, text.data, text.size, false, &ids));
    assert_true(ids.count < sizeof mask);
    mark(dialect->tokenizer, &ids, mask);
    if (ids.count > limit)
        ids.count = limit;
    assert_same_ids("data set", json_object_get(want, "ids"), &ids);
    assert_int_equal(json_array_size(json_object_get(want, "labels")), ids.count);
    assert_same_labels("data set", json_object_get(want, "labels"), &ids, mask);
    hy3_conversation_free(conversation);
    hy3_free(text.data);
    hy3_free(ids.data);
}

static void all_samples_of_the_data_set_give_the_golden_tokens(void **state)
{
    json_t *golden = hy3_golden_json("a/dataset_tokens.json");
    const json_t *samples = json_object_get(golden, "samples");
    size_t limit = (size_t)json_integer_value(json_object_get(golden, "max_seq_length"));
    char *text, *at, *end;
    size_t size, count = 0;

    assert_ok(hy3_file_read(hy3_golden("a/dataset.jsonl"), 1 << 20, &text, &size));
    for (at = text; (end = memchr(at, '\n', (size_t)(text + size - at))); at = end + 1)
        check_sample(*state, at, (size_t)(end - at), json_array_get(samples, count++), limit);
    assert_int_equal(count, json_array_size(samples));
    assert_true(count >= 30);
    hy3_free(text);
    json_decref(golden);
}

static void assert_json(const char *json, const char *want)
{
    json_t *value = json_loads(json, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
    struct hy3_text text = {0};

    assert_non_null(value);
    assert_ok(hy3_pyjson_append(&text, value));
    assert_int_equal(text.size, strlen(want));
    assert_memory_equal(text.data, want, text.size);
    hy3_free(text.data);
    json_decref(value);
}

static void json_is_printed_as_python_prints_it(void **state)
{
    static const struct {
        const char *json, *want;
    } rows[] = {
        {"{\"b\":[1,2,{}],\"a\":[],\"c\":null}", "{\"b\": [1, 2, {}], \"a\": [], \"c\": null}"},
        {"[true,false,-7,9223372036854775807]", "[true, false, -7, 9223372036854775807]"},
        {"\"a\\u0000\\u001f\\n\\t\\r\\b\\f\\\"\\\\/\\u007f\\u4e2d<&'\"",
         "\"a\\u0000\\u001f\\n\\t\\r\\b\\f\\\"\\\\/\x7f中<&'\""},
        {"[1.0,-0.0,0.1,1e5,1E16,1e15,123456789012345680.0]",
         "[1.0, -0.0, 0.1, 100000.0, 1e+16, 1000000000000000.0, 1.2345678901234568e+17]"},
        {"[1e-4,1e-5,0.00012,2.5e-7,1e100,1.5e300,5e-324]",
         "[0.0001, 1e-05, 0.00012, 2.5e-07, 1e+100, 1.5e+300, 5e-324]"},
        {"[9007199254740993.0,2.2250738585072014e-308,1.7976931348623157e308,0.3,100.5]",
         "[9007199254740992.0, 2.2250738585072014e-308, 1.7976931348623157e+308, 0.3, 100.5]"},
        {"[7.120236347223045e-307,6.63123685e-316,4.35,1e22,1e23]",
         "[7.120236347223045e-307, 6.63123685e-316, 4.35, 1e+22, 1e+23]"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_json(rows[i].json, rows[i].want);
}

static void assert_rendered(const char *line, const char *want)
{
    const struct hy3_template_options options = {.is_training = true};
    struct hy3_conversation *conversation;
    struct hy3_text text = {0};

    assert_ok(hy3_conversation_parse(line, strlen(line), &conversation));
    assert_ok(hy3_template_render(conversation, HY3_DIALECT_PREVIEW, &options, &text));
    if (text.size != strlen(want) || memcmp(text.data, want, text.size) != 0)
        fail_msg("rendered %.*s", (int)text.size, text.data);
    hy3_conversation_free(conversation);
    hy3_free(text.data);
}

#define HEAD "<｜hy_begin▁of▁sentence｜><｜reasoning_mode｜>reasoning_effort:no_think"
#define CALL(arguments)                                        \
    "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{" \
    "\"name\":\"f\",\"arguments\":" arguments "}]}]}"
#define CALLED(name, value)                                                                      \
    HEAD "<｜hy_Assistant｜><think></think><tool_calls>\n<tool_call>f<tool_sep>\n<arg_key>" name \
         "</arg_key>\n<arg_value>" value "</arg_value>\n</tool_call>\n</tool_calls><｜hy_eos｜>"

static void arguments_keep_numbers_of_any_size(void **state)
{
    (void)state;
    assert_rendered(CALL("{\"n\":123456789012345678901234567890}"),
                    CALLED("n", "123456789012345678901234567890"));
    assert_rendered(CALL("{\"n\":[-1e999,1e999,2]}"), CALLED("n", "[-Infinity, Infinity, 2]"));
    assert_rendered(CALL("{\"n\":\"1e999\"}"), CALLED("n", "1e999"));
    assert_rendered(CALL("{\"n\":{\"k\\\"\":99999999999999999999}}"),
                    CALLED("n", "{\"k\\\"\": 99999999999999999999}"));
}

static void other_names_of_reasoning_are_read_in_order(void **state)
{
    (void)state;
    assert_rendered(
        "{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\",\"reasoning\":\"r\","
        "\"thinking\":\"t\",\"reasoning_content\":null}]}",
        HEAD "<｜hy_Assistant｜><think>t</think>a<｜hy_eos｜>");
}

#define EOS  "<｜hy_eos｜>"
#define ROLE "<｜hy_Assistant｜>"

/* A line renders to `ids`; *found is the token that a content looks like, -1 if none does. */
static void encode_line(struct hy3_tokenizer *tokenizer, const char *line, struct hy3_ids *ids,
                        int32_t *found, int64_t *message)
{
    const struct hy3_template_options options = {.is_training = true};
    struct hy3_conversation *conversation;
    struct hy3_contents contents = {0};
    struct hy3_text text = {0};
    size_t at;

    ids->count = 0;
    assert_ok(hy3_conversation_parse(line, strlen(line), &conversation));
    assert_ok(
        hy3_template_render_marked(conversation, HY3_DIALECT_PREVIEW, &options, &text, &contents));
    assert_ok(
        hy3_tokenizer_encode_rendered(tokenizer, text.data, text.size, &contents, ids, found, &at));
    *message = *found < 0 ? -1 : hy3_contents_find(&contents, at, at + 1)->message;
    hy3_free(contents.items);
    hy3_free(text.data);
    hy3_conversation_free(conversation);
}

static size_t count_id(const struct hy3_ids *ids, int32_t id)
{
    size_t count = 0;

    for (size_t i = 0; i < ids->count; i++)
        count += ids->data[i] == id;
    return count;
}

/* In every text of a line, also where two texts that meet form the token, and in the JSON of the
 * tools; the turns stay what they are. */
static void no_text_of_a_line_becomes_a_control_token(void **state)
{
    static const char rest[] =
        "{\"role\":\"user\",\"content\":\"q\"},"
        "{\"role\":\"assistant\",\"content\":\"a\"}]}";

    static const struct {
        const char *line;
        int64_t message; /* that has it */
    } rows[] = {
        {"{\"messages\":[{\"role\":\"system\",\"content\":\"x" EOS "\"},", 1},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"" ROLE EOS "\"},", 1},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[\"<｜hy_\",\"eos｜>\"]},", 1},
        {"{\"messages\":[{\"role\":\"system\",\"content\":\"<｜hy_\"},"
         "{\"role\":\"user\",\"content\":\"\"},"
         "{\"role\":\"system\",\"content\":\"eos｜>\"},",
         1},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"\"},{\"role\":\"tool\",\"content\":\"" EOS
         "\"},",
         2},
        {"{\"tools\":[{\"description\":\"" EOS "\"}],\"messages\":[", 0},
        {"{\"tools\":[{\"" ROLE "\":1}],\"messages\":[", 0},
    };
    struct hy3_tokenizer *tokenizer = ((struct dialect *)*state)[0].tokenizer;
    const struct hy3_specials *special = hy3_tokenizer_specials(tokenizer);
    struct hy3_ids ids = {0};
    char line[400];
    int32_t found;
    int64_t message;

    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        snprintf(line, sizeof line, "%s%s", rows[i].line, rest);
        encode_line(tokenizer, line, &ids, &found, &message);
        assert_true(found == special->eos || found == special->assistant);
        assert_int_equal(message, rows[i].message);
        assert_int_equal(count_id(&ids, special->eos), 1);
        assert_int_equal(count_id(&ids, special->assistant), 1);
    }
    hy3_free(ids.data);
}

static void names_arguments_and_reasoning_are_texts_too(void **state)
{
    static const char *const calls[] = {"\"name\":\"f" EOS "\",\"arguments\":{}",
                                        "\"name\":\"f\",\"arguments\":{\"" EOS "\":1}",
                                        "\"name\":\"f\",\"arguments\":{\"k\":\"" EOS "\"}",
                                        "\"name\":\"f\",\"arguments\":{\"k\":[\"" EOS "\"]}"};
    struct hy3_tokenizer *tokenizer = ((struct dialect *)*state)[0].tokenizer;
    int32_t found, eos = hy3_tokenizer_specials(tokenizer)->eos;
    struct hy3_ids ids = {0};
    int64_t message;
    char line[300];

    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        snprintf(line, sizeof line,
                 "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{%s}]}]}", calls[i]);
        encode_line(tokenizer, line, &ids, &found, &message);
        assert_true(found == eos && message == 1 && count_id(&ids, eos) == 1);
    }
    encode_line(tokenizer,
                "{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\",\"thinking\":\"" EOS
                "\"}]}",
                &ids, &found, &message);
    assert_true(found == eos && message == 1 && count_id(&ids, eos) == 1);
    encode_line(tokenizer, "{\"messages\":[{\"role\":\"user\",\"content\":\"<think>x</think>\"}]}",
                &ids, &found, &message);
    assert_int_equal(found, -1); /* not flagged special */
    hy3_free(ids.data);
}

/* Where no content looks like a control token, marking changes nothing. */
static void plain_golden_rows_give_the_same_ids_marked(struct dialect *dialect)
{
    const json_t *row;
    size_t i, same = 0;

    json_array_foreach(json_object_get(dialect->golden, "cases"), i, row)
    {
        struct hy3_template_options options = {0};
        json_t *document = document_of(row, &options);
        struct hy3_conversation *conversation = NULL;
        struct hy3_contents contents = {0};
        struct hy3_text text = {0};
        struct hy3_ids ids = {0};
        int32_t found = 0;
        size_t at;

        if (parse(document, &conversation) == HY3_OK) {
            assert_ok(hy3_template_render_marked(conversation,
                                                 hy3_tokenizer_dialect(dialect->tokenizer),
                                                 &options, &text, &contents));
            assert_ok(hy3_tokenizer_encode_rendered(dialect->tokenizer, text.data, text.size,
                                                    &contents, &ids, &found, &at));
        }
        if (found < 0) {
            assert_same_ids(json_string_value(json_object_get(row, "name")),
                            json_object_get(row, "ids"), &ids);
            same++;
        }
        json_decref(document);
        hy3_conversation_free(conversation);
        hy3_free(contents.items);
        hy3_free(text.data);
        hy3_free(ids.data);
    }
    assert_true(same > 80);
}

static void marking_changes_no_golden_row_without_control_tokens(void **state)
{
    for (int d = 0; d < 2; d++)
        plain_golden_rows_give_the_same_ids_marked(&((struct dialect *)*state)[d]);
}

static void nul_does_not_cut_a_text(void **state)
{
    const struct hy3_template_options options = {.is_training = true};
    static const char line[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\\u0000b\"}]}";
    static const char want[] = HEAD "<｜hy_User｜>a\0b";
    struct hy3_conversation *conversation;
    struct hy3_text text = {0};

    (void)state;
    assert_ok(hy3_conversation_parse(line, sizeof line - 1, &conversation));
    assert_ok(hy3_template_render(conversation, HY3_DIALECT_PREVIEW, &options, &text));
    assert_int_equal(text.size, sizeof want - 1);
    assert_memory_equal(text.data, want, text.size);
    hy3_conversation_free(conversation);
    hy3_free(text.data);
}

static void a_prompt_opens_an_answer(void **state)
{
    static const char want[] = HEAD "<｜hy_User｜>Hi \"you\"<｜hy_Assistant｜><think></think>";
    const struct hy3_template_options options = {.add_generation_prompt = true,
                                                 .keep_thinking = -1};
    struct hy3_conversation *conversation;
    struct hy3_text text = {0};

    (void)state;
    assert_ok(hy3_conversation_prompt("Hi \"you\"", &conversation));
    assert_ok(hy3_template_render(conversation, HY3_DIALECT_PREVIEW, &options, &text));
    assert_int_equal(text.size, sizeof want - 1);
    assert_memory_equal(text.data, want, text.size);
    hy3_conversation_free(conversation);
    hy3_free(text.data);
    assert_fails(HY3_EFORMAT, "UTF-8", hy3_conversation_prompt("\xff", &conversation));
}

static void every_failing_allocation_ends_cleanly(void **state)
{
    const struct hy3_template_options options = {.is_training = true};
    static const char line[] = CALL("{\"n\":[1e999]}");
    hy3_status status = HY3_ENOMEM;

    (void)state;
    for (int64_t n = 1; status != HY3_OK; n++) {
        struct hy3_conversation *conversation = NULL;
        struct hy3_text text = {0};

        assert_true(n < 100);
        hy3_alloc_fail_at(n);
        status = hy3_conversation_parse(line, sizeof line - 1, &conversation);
        if (status == HY3_OK)
            status = hy3_template_render(conversation, HY3_DIALECT_PREVIEW, &options, &text);
        hy3_alloc_fail_at(0);
        assert_true(status == HY3_OK || status == HY3_ENOMEM);
        hy3_conversation_free(conversation);
        hy3_free(text.data);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(preview_cases_give_the_golden_text_ids_and_labels,
                                        open_both, close_both),
        cmocka_unit_test_setup_teardown(final_cases_give_the_golden_text_ids_and_labels, open_both,
                                        close_both),
        cmocka_unit_test_setup_teardown(what_the_template_raises_on_is_refused, open_both,
                                        close_both),
        cmocka_unit_test_setup_teardown(all_samples_of_the_data_set_give_the_golden_tokens,
                                        open_both, close_both),
        cmocka_unit_test_setup_teardown(no_text_of_a_line_becomes_a_control_token, open_both,
                                        close_both),
        cmocka_unit_test_setup_teardown(names_arguments_and_reasoning_are_texts_too, open_both,
                                        close_both),
        cmocka_unit_test_setup_teardown(marking_changes_no_golden_row_without_control_tokens,
                                        open_both, close_both),
        cmocka_unit_test(json_is_printed_as_python_prints_it),
        cmocka_unit_test(arguments_keep_numbers_of_any_size),
        cmocka_unit_test(other_names_of_reasoning_are_read_in_order),
        cmocka_unit_test(nul_does_not_cut_a_text),
        cmocka_unit_test(a_prompt_opens_an_answer),
        cmocka_unit_test(every_failing_allocation_ends_cleanly),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
