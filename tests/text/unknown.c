/* SPDX-License-Identifier: Apache-2.0 */
/* unknown.c - a property: whatever key stands in a line, at whatever level, with whatever value, it
 * is used (the text that is learned is another one), refused, or named among those not read. */
#include "support/test.h"
#include "text/forms.h"
#include "text/line.h"
#include "text/message.h"
#include "text/template.h"

static const struct hy3_form named = {.splits_think = true}, native = {0},
                             guessed = {.splits_think = true, .guesses = true};

#define NATIVE                                                                          \
    "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, {\"role\": \"user\", " \
    "\"content\": [{\"type\": \"text\", \"text\": \"a\"}]}, {\"role\": \"assistant\", " \
    "\"content\": \"b\", \"tool_calls\": [{\"type\": \"function\", \"function\": "      \
    "{\"name\": \"f\", \"arguments\": {\"x\": 1}}}]}, {\"role\": \"tool\", "            \
    "\"content\": \"r\"}, {\"role\": \"assistant\", \"content\": \"c\"}], \"tools\": [" \
    "{\"type\": \"function\", \"function\": {\"name\": \"f\"}}], "                      \
    "\"chat_template_kwargs\": {\"add\": 1}}"
#define SHAREGPT                                                                         \
    "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"gpt\", " \
    "\"value\": \"b\"}], \"system\": \"s\"}"
#define ALPACA "{\"instruction\": \"a\", \"output\": \"b\"}"

#define QUERY "{\"query\": \"a\", \"response\": \"b\"}"

/* The object at a path such as "messages/2/tool_calls/0". */
static json_t *follow(json_t *at, const char *path)
{
    char words[128], *rest = NULL;

    snprintf(words, sizeof words, "%s", path);
    for (char *w = strtok_r(words, "/", &rest); w; w = strtok_r(NULL, "/", &rest))
        at = json_is_array(at) ? json_array_get(at, (size_t)strtoul(w, NULL, 10))
                               : json_object_get(at, w);
    assert_true(json_is_object(at));
    return at;
}

/* Renders the line; text: what is learned, free; names: those not read. */
static hy3_status render(const struct hy3_form *form, json_t *line, char **text, char **names)
{
    static const struct hy3_template_options training = {.is_training = true, .keep_thinking = -1};
    static const struct hy3_reading plain;
    struct hy3_conversation *conversation;
    struct hy3_text out = {0};
    char *bytes = json_dumps(line, 0);
    hy3_status status = hy3_conversation_parse_form(
        bytes, strlen(bytes), form, &plain, hy3_dialect_names(HY3_DIALECT_FINAL), &conversation);

    free(bytes);
    *text = *names = NULL;
    if (status != HY3_OK)
        return status;
    assert_ok(hy3_template_render(conversation, HY3_DIALECT_FINAL, &training, &out));
    assert_ok(hy3_text_append(&out, "", 1));
    *text = out.data;
    *names = json_dumps(hy3_conversation_unread(conversation), 0);
    hy3_conversation_free(conversation);
    return HY3_OK;
}

/* Values that a key has where it says nothing. */
static bool says_nothing(const char *value)
{
    return strcmp(value, "null") == 0 || strcmp(value, "\"\"") == 0 || strcmp(value, "[]") == 0 ||
           strcmp(value, "{}") == 0 || strcmp(value, "false") == 0 || strcmp(value, "0") == 0 ||
           strcmp(value, "1") == 0 || strcmp(value, "true") == 0;
}

/* The weight of an answer's loss, which changes labels and not the text (tests/text/labels.c). */
static bool is_weight(const json_t *object, const char *key, const json_t *value)
{
    const char *role = json_string_value(json_object_get(object, "role"));
    const char *from = json_string_value(json_object_get(object, "from"));

    return strcmp(key, "weight") == 0 && json_is_number(value) &&
           ((role && strcmp(role, "assistant") == 0) || (from && strcmp(from, "gpt") == 0));
}

struct level {
    const struct hy3_form *form;
    const char *line, *path;
};

static void check(const struct level *l, const char *key, const char *value)
{
    json_t *line, *object, *odd;
    char *before, *after, *names, *unread;
    hy3_status status;

    assert_ok(hy3_json_line(l->line, strlen(l->line), &line));
    assert_ok(hy3_json_line(value, strlen(value), &odd));
    assert_ok(render(l->form, line, &before, &unread));
    object = follow(line, l->path);
    if (!json_object_get(object, key) && !is_weight(object, key, odd)) {
        assert_int_equal(json_object_set(object, key, odd), 0);
        status = render(l->form, line, &after, &names);
        assert_true(status == HY3_OK || status == HY3_EFORMAT);
        if (status == HY3_OK && strcmp(before, after) == 0 && !says_nothing(value) &&
            !strstr(names, key) && !(strstr(l->path, "kwargs") && strstr(names, "kwargs")))
            fail_msg("%s: %s at '%s' of %s is dropped in silence; named: %s", key, value, l->path,
                     l->line, names);
        free(after);
        free(names);
    }
    free(before);
    free(unread);
    json_decref(odd);
    json_decref(line);
}

static const struct level levels[] = {
    {&native, NATIVE, ""},
    {&native, NATIVE, "messages/0"},
    {&native, NATIVE, "messages/1"},
    {&native, NATIVE, "messages/1/content/0"},
    {&native, NATIVE, "messages/2"},
    {&native, NATIVE, "messages/2/tool_calls/0"},
    {&native, NATIVE, "messages/2/tool_calls/0/function"},
    {&native, NATIVE, "messages/2/tool_calls/0/function/arguments"},
    {&native, NATIVE, "messages/3"},
    {&native, NATIVE, "messages/4"},
    {&native, NATIVE, "tools/0"},
    {&native, NATIVE, "tools/0/function"},
    {&native, NATIVE, "chat_template_kwargs"},
    {&named, NATIVE, ""},
    {&named, NATIVE, "messages/4"},
    {&sharegpt, SHAREGPT, ""},
    {&sharegpt, SHAREGPT, "conversations/0"},
    {&sharegpt, SHAREGPT, "conversations/1"},
    {&alpaca, ALPACA, ""},
    {&guessed, ALPACA, ""},
    {&guessed, QUERY, ""},
    {&guessed, SHAREGPT, ""},
    {&guessed, SHAREGPT, "conversations/0"},
    {&guessed, SHAREGPT, "conversations/1"},
    {&guessed, NATIVE, ""},
    {&guessed, NATIVE, "messages/4"},
};

/* Separated by blanks. */
static const char keys[] =
    "zzz system tools reasoning_effort messages conversations history "
    "input instruction query prompt problem answer output solution completion system_prompt "
    "conversation response images audios videos chosen rejected "
    "kto_tag id source name content text value from role thinking "
    "reasoning tool_calls function_call arguments weight reasoning_content "
    "enable_thinking tool_call_id type label skip masked "
    "chat_template_kwargs";

static const char *const values[] = {"\"odd\"",    "7",     "2.5",     "true",
                                     "false",      "null",  "\"\"",    "[]",
                                     "{}",         "0",     "[\"x\"]", "[[\"p\", \"q\"]]",
                                     "{\"x\": 1}", "1e999", "\"high\""};

static void no_key_is_dropped_in_silence(void **state)
{
    char words[sizeof keys], *rest = NULL;

    memcpy(words, keys, sizeof words);
    for (const char *key = strtok_r(words, " ", &rest); key; key = strtok_r(NULL, " ", &rest))
        for (size_t l = 0; l < sizeof levels / sizeof *levels; l++)
            for (size_t v = 0; v < sizeof values / sizeof *values; v++)
                check(&levels[l], key, values[v]);
}

static void two_places_that_differ_are_told(void **state)
{
    static const struct {
        const struct hy3_form *form;
        const char *line, *names; /* NULL: a bad line */
    } cases[] = {
        {&native,
         "{\"reasoning_effort\": \"low\", \"chat_template_kwargs\": {\"reasoning_effort\": "
         "\"high\"}, \"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}",
         NULL},
        {&native, "{\"system\": \"t\", \"messages\": [{\"role\": \"system\", \"content\": \"s\"}]}",
         "system (beside a system message)"},
        {&alpaca,
         "{\"instruction\": \"a\", \"output\": \"b\", \"messages\": [{\"role\": \"user\"}]}",
         "messages (no column)"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *line;
        char *text, *names;
        hy3_status status;

        assert_ok(hy3_json_line(cases[i].line, strlen(cases[i].line), &line));
        status = render(cases[i].form, line, &text, &names);
        assert_int_equal(status, cases[i].names ? HY3_OK : HY3_EFORMAT);
        if (cases[i].names && !strstr(names, cases[i].names))
            fail_msg("'%s' is not among %s", cases[i].names, names);
        free(text);
        free(names);
        json_decref(line);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_key_is_dropped_in_silence),
        cmocka_unit_test(two_places_that_differ_are_told),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
