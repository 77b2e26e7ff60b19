/* SPDX-License-Identifier: Apache-2.0 */
/* What a line may say, and that a refusal names what is wrong. */
#include "text/message.h"

#include "base/file.h"
#include "base/memory.h"
#include "support/test.h"
#include "text/keys.h"
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

#define USER(rest)   "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"" rest "}]}"
#define ANSWER(rest) "{\"messages\":[{\"role\":\"assistant\",\"content\":\"y\"" rest "}]}"
#define CALL(call)   "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":" call "}]}"

static const struct {
    const char *line, *words;
} refused[] = {
    {"", "not valid JSON"},
    {"[1]", "must be an object with 'messages', not a list"},
    {"null", "not null"},
    {"\"x\"", "not a text"},
    {" 1e999", "not a number"},
    {"true", "not true"},
    {"{\"messages\":[],\"messages\":[]}", "duplicate"},
    {"{}", "'messages' is missing"},
    {"{\"messages\":{}}", "must be a list"},
    {"{\"messages\":[]}", "is empty"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"x\"},7]}", "message 2: it must be an object"},
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
    {"{\"messages\":[{\"role\":\"user\",\"text\":\"hi\"}]}",
     "message 1: 'content' is missing ('text' is not read)"},
    {"{\"messages\":[{\"role\":\"tool\"}]}", "'content' is missing"},
    {"{\"messages\":[{\"role\":\"assistant\",\"reasoning_content\":\"\"}]}",
     "'content' is missing"},
    {"{\"messages\":[{\"role\":\"user\",\"reasoning_content\":\"r\"}]}", "'content' is missing"},
    {"{\"messages\":[{\"role\":\"assistant\",\"content\":null,\"refusal\":\"no\"}]}",
     "'content' is null and 'refusal' is not read"},
    {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"x\",\"function_call\":{}}]}",
     "'function_call' is not read; write the call as 'tool_calls'"},
    {USER("},{\"role\":\"assistant\",\"content\":\"y\",\"Train\":false"), "'Train' would change"},
    {USER("},{\"role\":\"assistant\",\"content\":\"y\",\"loss\":\"0\""),
     "message 2: 'loss' must be true or false"},
    {ANSWER(",\"loss\":0.5"), "'loss' must be true or false; a number is a 'loss_weight'"},
    {ANSWER(",\"loss_weight\":-0.5"), "'loss_weight' must be a number from 0 (not learned) to 100"},
    {ANSWER(",\"loss_weight\":100.1"), "'loss_weight' must be a number from 0"},
    {ANSWER(",\"loss_weight\":1e999"), "'loss_weight' must be a number from 0"},
    {ANSWER(",\"loss_weight\":NaN"), "not valid JSON"},
    {ANSWER(",\"loss_weight\":\"nan\""), "'loss_weight' must be a number from 0"},
    {ANSWER(",\"loss_weight\":true"), "'loss_weight' must be a number from 0"},
    {ANSWER(",\"weight\":-1"), "'weight' must be a number from 0"},
    {ANSWER(",\"weight\":[1]"), "'weight' must be a number from 0"},
    {ANSWER(",\"weight\":1,\"loss_weight\":2"), "'loss_weight' and 'weight' differ; keep one"},
    {ANSWER(",\"loss\":false,\"loss_weight\":3"), "the weight the opposite; keep one"},
    {ANSWER(",\"loss\":true,\"weight\":0"), "the weight the opposite; keep one"},
    {USER(",\"weight\":0.5"), "'weight' is for an answer of the assistant"},
    {USER(",\"loss_weight\":1"), "message 1: 'loss_weight' is for an answer of the assistant"},
    {USER(",\"loss\":true"), "'loss' is true, but only an answer of the assistant is learned"},
    {"{\"messages\":[{\"role\":\"system\",\"content\":\"x\",\"loss_weight\":0}]}",
     "'loss_weight' is for an answer"},
    {"{\"messages\":[{\"role\":\"tool\",\"content\":\"x\",\"loss_weight\":0}]}",
     "'loss_weight' is for an answer"},
    {"{\"loss_weight\":2,\"messages\":[]}", "'loss_weight' would change"},
    {"{\"sample_weight\":2,\"messages\":[]}", "'sample_weight' would change"},
    {"{\"label\":false,\"messages\":[]}", "'label' would change"},
    {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"\",\"refusal\":\"no\"}]}",
     "'content' is empty and 'refusal' is not read"},
    {ANSWER(",\"is_training\":false"), "'is_training' would change"},
    {ANSWER(",\"do_train\":0"), "'do_train' would change"},
    {ANSWER(",\"lossWeight\":0.5"), "'lossWeight' would change"},
    {ANSWER(",\"loss-weight\":\"0\""), "'loss-weight' would change"},
    {ANSWER(",\"noLoss\":true"), "'noLoss' would change"},
    {ANSWER(",\"token_weights\":[0,1]"), "'token_weights' would change"},
    {ANSWER(",\"is_masked\":true"), "'is_masked' would change"},
    {ANSWER(",\"skip\":true"), "'skip' would change"},
    {"{\"train_on_inputs\":true,\"messages\":[]}", "'train_on_inputs' would change"},
    {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"\",\"Content\":\"a\"}]}",
     "'content' is empty and 'Content' is not read"},
    {"{\"messages\":[{\"role\":\"assistant\",\"reasoning\":\"r\",\"body\":\"a\"}]}",
     "'content' is empty and 'body' is not read"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":\"\",\"images\":[\"a.png\"]}]}",
     "'images' cannot be trained on"},
    {ANSWER(",\"reasoning_content\":\"\",\"reasoning\":\"r\""),
     "'reasoning_content' is empty and 'reasoning' is not read"},
    {"{\"reasoning_effort\":\"low\\u0000\",\"messages\":[{\"role\":\"user\"}]}",
     "'reasoning_effort' is 'low'"},
    {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\\u0000\","
     "\"text\":\"x\"}]}]}",
     "part 1 of 'content' is no text"},
    {"{\"messages\":[{\"role\":\"assistant\",\"content\":[\"\"],\"audio\":{\"id\":1}}]}",
     "'audio' cannot be trained on"},
    {CALL("[3]"), "must be an object"},
    {CALL("[{\"function\":null}]"), "must be an object"},
    {CALL("[{\"function\":{\"arguments\":{}}}]"), "needs a 'name'"},
    {CALL("[{\"name\":\"f\",\"arguments\":\"{\"}]"), "is a text that is not JSON"},
    {CALL("[{\"name\":\"f\",\"arguments\":\"3\"}]"), "must be an object, not"},
    {CALL("[{\"name\":\"f\"}]"), "must be an object"},
    {CALL("[{\"name\":\"f\",\"arguments\":1e999}]"), "must be an object"},
    {"{\"reasoning_effort\":\"\",\"messages\":[{\"role\":\"user\"}]}", "'reasoning_effort' is ''"},
    {"{\"tools\":\"[\",\"messages\":[{\"role\":\"user\"}]}", "'tools' is a text that is not JSON"},
    {"{\"tools\":\"{}\",\"messages\":[{\"role\":\"user\"}]}", "'tools' must be a list"},
    {"{\"tools\":[1],\"messages\":[{\"role\":\"user\"}]}", "tool 1 must be an object"},
    {USER(",\"images\":[\"a.png\"]"), "'images' cannot be trained on"},
    {"{\"rejected\":\"x\",\"messages\":[{\"role\":\"user\"}]}", "'rejected' is for training on"},
    {"{\"kto_tag\":false,\"messages\":[{\"role\":\"user\"}]}", "'kto_tag' is for training on"},
    {"{\"a\":01e999,\"messages\":[{\"role\":\"user\"}]}", "not valid JSON"},
    {"{\"a\":1e+,\"b\":1e999,\"messages\":[{\"role\":\"user\"}]}", "not valid JSON"},
};

static void a_refusal_says_what_is_wrong(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        assert_fails(HY3_EFORMAT, refused[i].words,
                     read_line(refused[i].line, strlen(refused[i].line)));
}

static void an_answer_has_the_weight_it_names(void **state)
{
    static const struct {
        const char *keys;
        double weight;
    } rows[] = {{"", 1},
                {",\"loss\":true", 1},
                {",\"loss\":1", 1},
                {",\"loss\":null,\"weight\":null,\"loss_weight\":null", 1},
                {",\"loss\":false", 0},
                {",\"loss\":0", 0},
                {",\"loss_weight\":0", 0},
                {",\"loss_weight\":0.5", 0.5},
                {",\"weight\":100", 100},
                {",\"weight\":0.0", 0},
                {",\"weight\":2,\"loss_weight\":2.0", 2},
                {",\"loss\":true,\"loss_weight\":3", 3},
                {",\"loss_weight\":1e-60", 0}}; /* as fp32 */

    char line[400];

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct hy3_conversation *conversation;

        snprintf(line, sizeof line,
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\","
                 "\"content\":\"a\"%s}]}",
                 rows[i].keys);
        assert_ok(hy3_conversation_parse(line, strlen(line), &conversation));
        assert_true(hy3_conversation_weight(conversation, 1) == 1);
        assert_true(hy3_conversation_weight(conversation, 2) == (float)rows[i].weight);
        assert_int_equal(hy3_conversation_is_weighted(conversation), rows[i].weight != 1);
        hy3_conversation_free(conversation);
    }
}

static void what_is_harmless_is_accepted(void **state)
{
    static const char *const lines[] = {
        USER(",\"name\":1,\"weight\":null,\"tool_call_id\":\"a\",\"id\":[]"),
        USER(",\"loss\":false},{\"role\":\"assistant\",\"content\":\"y\","
             "\"weight\":1.0,"
             "\"loss\":true,\"train\":null"),
        "{\"label\":\"sport\",\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}",
        "{\"messages\":[{\"role\":\"assistant\",\"reasoning\":\"r\"}]}",
        ANSWER(",\"is_training\":true,\"skip\":false,\"training_notes\":\"a text\",\"strain\":2"),
        ANSWER(",\"reasoning_content\":null,\"reasoning\":\"r\""),
        "{\"label_id\":3,\"messages\":[{\"role\":\"tool\",\"content\":\"\",\"name\":\"f\","
        "\"tool_call_id\":\"1\"}]}",
        "{\"messages\":[{\"role\":\"assistant\",\"content\":\"\",\"refusal\":null,"
        "\"name\":\"a\"}]}",
        "{\"messages\":[{\"role\":\"assistant\",\"content\":null,\"refusal\":null,"
        "\"tool_calls\":[{\"name\":\"f\",\"arguments\":{}}]}]}",
        USER(",\"context\":\"beside content is no misspelling\""),
        "{\"id\":-99999999999999999999,\"x\":\"1e999 \\\" 5\",\"y\":[1e999,-1E+999,0.5e-999],"
        "\"messages\":[{\"role\":\"user\",\"content\":null}]}",
        "\xef\xbb\xbf" USER(""),
        USER("") "\r",
        "{\"reasoning_effort\":null,\"tools\":null,\"messages\":[{\"role\":\"tool\","
        "\"content\":\"\"}]}",
        USER(",\"tool_calls\":[],\"reasoning_content\":null"),
    };

    (void)state;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        assert_ok(read_line(lines[i], strlen(lines[i])));
}

/* The keys that are not read, joined by spaces; static memory. */
static const char *unread_of(const char *line, int64_t *nulls)
{
    static char names[600];
    struct hy3_conversation *conversation;
    const char *name;
    json_t *value;

    names[0] = '\0';
    assert_ok(hy3_conversation_parse(line, strlen(line), &conversation));
    json_object_foreach(hy3_conversation_unread(conversation), name, value)
    {
        snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", *names ? " " : "",
                 name);
    }
    *nulls = hy3_conversation_null_contents(conversation);
    hy3_conversation_free(conversation);
    return names;
}

static void what_is_not_read_is_named_once(void **state)
{
    static const struct {
        const char *line, *names;
        int64_t nulls;
    } rows[] = {
        {USER(""), "", 0},
        {USER(",\"name\":\"a\"},{\"role\":\"user\",\"content\":\"y\",\"name\":\"b\""),
         "messages[].name", 0},
        {"{\"id\":7,\"messages\":[{\"role\":\"user\",\"content\":null}]}", "id", 1},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[]},{\"role\":\"user\",\"content\":null}]}",
         "", 2},
        {"{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\","
         "\"cache_control\":{}}]}]}",
         "messages[].content[].cache_control", 0},
        {CALL("[{\"id\":\"1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":{},"
              "\"strict\":true}}]"),
         "messages[].tool_calls[].id messages[].tool_calls[].type "
         "messages[].tool_calls[].function.strict",
         0},
        {CALL("[{\"id\":\"1\",\"name\":\"f\",\"arguments\":{}}]"), "messages[].tool_calls[].id", 0},
        {USER(",\"reasoning_content\":\"r\",\"tool_calls\":[{\"name\":\"f\",\"arguments\":{}}]"),
         "messages[].reasoning_content (user) messages[].tool_calls (user)", 0},
        {"{\"messages\":[{\"role\":\"assistant\",\"content\":\"a\",\"reasoning_content\":\"r\","
         "\"reasoning\":\"s\"}]}",
         "messages[].reasoning (assistant)", 0},
        {USER(",\"train\":true"), "messages[].train", 0}, /* a question is not learned */
        {USER(",\"a\\u001b[2J\\u009b\":1"), "messages[].a?[2J?", 0},
    };

    int64_t nulls;

    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_string_equal(unread_of(rows[i].line, &nulls), rows[i].names);
        assert_int_equal(nulls, rows[i].nulls);
    }
}

/* One line with an odd key at one place: it must be refused by its name, or be named, or the text
 * must say it. */
static void check_odd_key(const char *line, const char *key, const char *value)
{
    static const char weights[] = "weight loss train loss_weight", plain[] = "1 true null";
    const struct hy3_template_options options = {.is_training = true};
    bool is_default = (strstr(weights, key) && strstr(plain, value)) ||
                      (strcmp(key, "loss") == 0 && strstr("0 false", value));
    struct hy3_conversation *conversation;
    struct hy3_text text = {0};
    int64_t nulls;
    hy3_status status = hy3_conversation_parse(line, strlen(line), &conversation);

    if (status != HY3_OK) {
        if (!strstr(hy3_error_text(), key) && !is_default)
            fail_msg("%s: '%s' is not named: %s", line, key, hy3_error_text());
        return;
    }
    assert_ok(hy3_template_render(conversation, HY3_DIALECT_FINAL, &options, &text));
    is_default |= hy3_conversation_is_weighted(conversation);
    hy3_conversation_free(conversation);
    if (!memmem(text.data, text.size, key, strlen(key)) && !strstr(unread_of(line, &nulls), key) &&
        !is_default)
        fail_msg("%s: '%s' is dropped in silence", line, key);
    hy3_free(text.data);
}

static void every_odd_key_at_every_level_is_used_refused_or_named(void **state)
{
    static const char *const lines[] = {
        "{%s\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}",
        "{\"messages\":[{%s\"role\":\"user\",\"content\":\"q\"}]}",
        "{\"messages\":[{%s\"role\":\"assistant\",\"content\":\"q\"}]}",
        "{\"messages\":[{%s\"role\":\"assistant\",\"content\":null}]}",
        "{\"messages\":[{%s\"role\":\"system\"}]}",
        "{\"messages\":[{\"role\":\"user\",\"content\":[{%s\"type\":\"text\",\"text\":\"q\"}]}]}",
        CALL("[{%s\"name\":\"f\",\"arguments\":{}}]"),
        CALL("[{%s\"function\":{\"name\":\"f\",\"arguments\":{}}}]"),
        CALL("[{\"function\":{%s\"name\":\"f\",\"arguments\":{}}}]"),
        CALL("[{\"function\":{\"name\":\"f\",\"arguments\":{%s\"n\":1}}}]"),
        "{\"tools\":[{%s\"type\":\"function\"}],"
        "\"messages\":[{\"role\":\"user\",\"content\":\"q\"}]}",
    };
    static const char *const keys[] = {
        "name",     "weight",      "loss",          "train",   "mask",         "contents",
        "text",     "value",       "function_call", "refusal", "audio",        "annotations",
        "Role",     "prefix",      "from",          "label",   "tool_call_id", "thinking_blocks",
        "\xc3\xa9", "loss_weight",
    };
    static const char *const values[] = {"null", "0",  "1",        "true", "false",
                                         "\"\"", "[]", "\"said\"", "{}",   "0.5"};
    char odd[100], line[400];

    (void)state;
    for (size_t l = 0; l < sizeof lines / sizeof *lines; l++)
        for (size_t k = 0; k < sizeof keys / sizeof *keys; k++)
            for (size_t v = 0; v < sizeof values / sizeof *values; v++) {
                const char *place = strstr(lines[l], "%s");

                snprintf(odd, sizeof odd, "\"%s\":%s,", keys[k], values[v]);
                snprintf(line, sizeof line, "%.*s%s%s", (int)(place - lines[l]), lines[l], odd,
                         place + 2);
                if (!strstr(place, "\"name\"") || strcmp(keys[k], "name") != 0)
                    check_odd_key(line, keys[k], values[v]);
            }
}

static void a_line_of_many_keys_names_a_few(void **state)
{
    enum { KEYS = 1000 };

    static char line[KEYS * 16 + 100];
    struct hy3_conversation *conversation;
    const json_t *unread;
    size_t used;

    (void)state;
    used = (size_t)snprintf(line, sizeof line, "%s",
                            "{\"messages\":[{\"role\":\"user\","
                            "\"content\":\"x\"}]");
    for (int i = 0; i < KEYS; i++)
        used += (size_t)snprintf(line + used, sizeof line - used, ",\"zq%04d\":1", i);
    snprintf(line + used, sizeof line - used, "}");
    assert_ok(hy3_conversation_parse(line, strlen(line), &conversation));
    unread = hy3_conversation_unread(conversation);
    assert_int_equal(json_object_size(unread), HY3_KEYS_NOTED + 1);
    assert_non_null(json_object_get(unread, "zq0000"));
    assert_non_null(json_object_get(unread, HY3_KEYS_OTHERS));
    hy3_conversation_free(conversation);
}

static void a_line_of_too_many_values_is_refused(void **state)
{
    static const char head[] = "{\"messages\":[{\"role\":\"user\",\"content\":[";

    size_t size = 6 << 20, used = strlen(head);
    char *line = test_malloc(size);
    struct hy3_conversation *conversation;

    (void)state;
    memcpy(line, head, used);
    for (size_t i = used; i < size; i++)
        line[i] = "[],"[(i - used) % 3];
    assert_fails(HY3_EFORMAT, "its JSON values would take about 6",
                 hy3_conversation_parse(line, size, &conversation));
    memset(line + used, ' ', size - used); /* as long, but not as many */
    memcpy(line + size - 4, "]}]}", 4);
    line[used] = '"';
    memset(line + used + 1, '[', size - used - 6);
    line[size - 5] = '"';
    assert_ok(hy3_conversation_parse(line, size, &conversation));
    hy3_conversation_free(conversation);
    test_free(line);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_bad_lines_are_refused_and_good_ones_accepted),
        cmocka_unit_test(a_refusal_says_what_is_wrong),
        cmocka_unit_test(an_answer_has_the_weight_it_names),
        cmocka_unit_test(what_is_harmless_is_accepted),
        cmocka_unit_test(what_is_not_read_is_named_once),
        cmocka_unit_test(a_line_of_many_keys_names_a_few),
        cmocka_unit_test(a_line_of_too_many_values_is_refused),
        cmocka_unit_test(every_odd_key_at_every_level_is_used_refused_or_named),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
