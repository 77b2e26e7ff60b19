/* SPDX-License-Identifier: Apache-2.0 */
/* What a line may say, and that a refusal names what is wrong. */
#include "text/message.h"

#include "base/file.h"
#include "base/memory.h"
#include "support/test.h"
#include "text/template.h"

static hy3_status read_line(const char *line, size_t size)
{
    const struct hy3_template_options options = {.is_training = true};
    struct hy3_conversation *conversation;
    struct hy3_text text = {0};
    hy3_status status = hy3_conversation_parse(line, size, &conversation);

    if (status != HY3_OK) {
        assert_int_equal(status, HY3_EFORMAT);
        assert_true(strlen(hy3_error_text()) > 10);
        return status;
    }
    assert_ok(hy3_template_render(conversation, HY3_DIALECT_FINAL, &options, &text));
    assert_true(text.size > 0);
    hy3_free(text.data);
    hy3_conversation_free(conversation);
    return HY3_OK;
}

/* The number of the first refused line, 0 if none is; blank lines are the caller's business. */
static int64_t first_refused(const char *text, size_t size)
{
    const char *end = text + size, *stop;
    int64_t number = 1;

    for (const char *at = text; at < end; at = stop + 1, number++) {
        if (!(stop = memchr(at, '\n', (size_t)(end - at))))
            stop = end;
        if (stop > at && read_line(at, (size_t)(stop - at)) != HY3_OK)
            return number;
    }
    return 0;
}

static void check_file(const json_t *entry)
{
    const char *name = json_string_value(json_object_get(entry, "file"));
    const char *expect = json_string_value(json_object_get(entry, "expect"));
    char path[256], *text;
    int64_t refused;
    size_t size;

    snprintf(path, sizeof path, "a/bad_inputs/%s", name);
    assert_ok(hy3_file_read(hy3_golden(path), 1 << 20, &text, &size));
    refused = first_refused(text, size);
    if (strcmp(expect, "accept") == 0 && refused != 0)
        fail_msg("%s is refused: %s", name, hy3_error_text());
    if (strcmp(expect, "reject") == 0 && size > 0 &&
        refused != json_integer_value(json_object_get(entry, "line")))
        fail_msg("%s is refused at line %lld", name, (long long)refused);
    hy3_free(text);
}

static void golden_bad_lines_are_refused_and_good_ones_accepted(void **state)
{
    json_t *golden = hy3_golden_json("a/bad_inputs.json");
    const json_t *entry;
    size_t i, count = 0;

    (void)state;
    json_array_foreach(json_object_get(golden, "files"), i, entry)
    {
        const char *kind = json_string_value(json_object_get(entry, "kind"));

        if (strcmp(kind, "jsonl") != 0 || !json_is_string(json_object_get(entry, "file")))
            continue;
        check_file(entry);
        count++;
    }
    assert_true(count >= 30);
    json_decref(golden);
}

#define USER(rest) "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"" rest "}]}"
#define CALL(call) "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":" call "}]}"

static void a_refusal_says_what_is_wrong(void **state)
{
    static const struct {
        const char *line, *words;
    } rows[] = {
        {"", "not valid JSON"},
        {"[1]", "must be an object"},
        {"{}", "'messages' is missing"},
        {"{\"messages\":{}}", "must be a list"},
        {"{\"messages\":[]}", "is empty"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},7]}",
         "message 2: it must be an object"},
        {"{\"messages\":[{\"content\":\"x\"}]}", "message 1: 'role' is missing"},
        {"{\"messages\":[{\"role\":3}]}", "'role' must be a text"},
        {"{\"messages\":[{\"role\":\"User\"}]}", "unknown role 'User'"},
        {"{\"messages\":[{\"role\":\"user\\u0000\"}]}", "unknown role"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":true}]}", "'content' must be a text"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\"}]}]}",
         "part 1 of 'content' is no text"},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[\"a\",{\"type\":\"text\"}]}]}",
         "part 2 of 'content' has no 'text'"},
        {"{\"messages\":[{\"role\":\"user\",\"contnet\":\"x\"}]}", "did you mean 'content'"},
        {USER(",\"reasoningContent\":\"x\""), "did you mean 'reasoning_content'"},
        {USER(",\"tool_call\":[]"), "did you mean 'tool_calls'"},
        {"{\"Messages\":[]}", "did you mean 'messages'"},
        {"{\"reasoning_efort\":\"low\",\"messages\":[]}", "did you mean 'reasoning_effort'"},
        {USER(",\"reasoning_content\":[]"), "'reasoning_content' must be a text"},
        {USER(",\"tool_calls\":{}"), "'tool_calls' must be a list"},
        {CALL("[3]"), "must be an object"},
        {CALL("[{\"function\":null}]"), "must be an object"},
        {CALL("[{\"function\":{\"arguments\":{}}}]"), "needs a 'name'"},
        {CALL("[{\"name\":\"f\",\"arguments\":\"{}\"}]"), "not JSON as text"},
        {CALL("[{\"name\":\"f\"}]"), "must be an object"},
        {CALL("[{\"name\":\"f\",\"arguments\":1e999}]"), "must be an object"},
        {"{\"reasoning_effort\":\"\",\"messages\":[{\"role\":\"user\"}]}",
         "'reasoning_effort' is ''"},
        {"{\"tools\":\"[]\",\"messages\":[{\"role\":\"user\"}]}", "'tools' must be a list"},
        {"{\"tools\":[1],\"messages\":[{\"role\":\"user\"}]}", "tool 1 must be an object"},
        {"{\"a\":01e999,\"messages\":[{\"role\":\"user\"}]}", "not valid JSON"},
        {"{\"a\":1e+,\"b\":1e999,\"messages\":[{\"role\":\"user\"}]}", "not valid JSON"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_fails(HY3_EFORMAT, rows[i].words, read_line(rows[i].line, strlen(rows[i].line)));
}

static void what_nobody_reads_is_ignored(void **state)
{
    static const char *const lines[] = {
        USER(",\"name\":1,\"weight\":0.5,\"tool_call_id\":\"a\",\"id\":[]"),
        USER(",\"context\":\"beside content is no misspelling\""),
        "{\"id\":-99999999999999999999,\"x\":\"1e999 \\\" 5\",\"y\":[1e999,-1E+999,0.5e-999],"
        "\"messages\":[{\"role\":\"user\",\"content\":null}]}",
        "\xef\xbb\xbf" USER(""),
        USER("") "\r",
        "{\"reasoning_effort\":null,\"tools\":null,\"messages\":[{\"role\":\"tool\"}]}",
        USER(",\"tool_calls\":[],\"reasoning_content\":null"),
    };

    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        assert_ok(read_line(lines[i], strlen(lines[i])));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_bad_lines_are_refused_and_good_ones_accepted),
        cmocka_unit_test(a_refusal_says_what_is_wrong),
        cmocka_unit_test(what_nobody_reads_is_ignored),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
