/* SPDX-License-Identifier: Apache-2.0 */
/* form.c - conversations of other tools become the line that says the same. */
#include "base/memory.h"
#include "support/test.h"
#include "text/forms.h"
#include "text/guess.h"
#include "text/line.h"
#include "text/message.h"

static const struct hy3_form named = {.splits_think = true}, native = {0},
                             guessed = {.splits_think = true, .guesses = true};

static struct hy3_reading reading; /* of the lines that follow */

static json_t *apply(const struct hy3_form *form, const char *text, hy3_status *status)
{
    struct hy3_form own = *form;
    json_t *line;

    assert_ok(hy3_json_line(text, strlen(text), &line));
    *status = form->guesses ? hy3_form_guess(form, line, &own) : HY3_OK;
    if (*status == HY3_OK)
        *status = hy3_form_apply(&own, &reading, hy3_dialect_names(HY3_DIALECT_FINAL), line);
    return line;
}

/* The same JSON, whatever the order of keys. */
static void assert_becomes(const struct hy3_form *form, const char *text, const char *wanted)
{
    hy3_status status;
    json_t *line = apply(form, text, &status), *right;
    char *shown;

    assert_ok(status);
    assert_ok(hy3_json_line(wanted, strlen(wanted), &right));
    shown = json_dumps(line, JSON_ENSURE_ASCII);
    if (!json_equal(line, right))
        fail_msg("%s\nbecame\n%s\nnot\n%s", text, shown, wanted);
    free(shown);
    json_decref(line);
    json_decref(right);
}

#define ASK    "{\"role\": \"user\", \"content\": \"a\"}"
#define ANSWER "{\"role\": \"assistant\", \"content\": \"b\"}"
#define LOW    "\"reasoning_effort\": \"no_think\""

static void alpaca_becomes_messages(void **state)
{
    (void)state;
    assert_becomes(&alpaca, "{\"instruction\": \"a\", \"output\": \"b\"}",
                   "{\"messages\": [" ASK ", " ANSWER "], " LOW "}");
    assert_becomes(&alpaca,
                   "{\"instruction\": \"x\", \"input\": \"y\", \"output\": \"b\", \"system\": "
                   "\"s\", \"history\": [[\"a\", \"b\"]], \"id\": 3}",
                   "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, " ASK ", " ANSWER
                   ", {\"role\": \"user\", \"content\": \"x\\ny\"}, " ANSWER "], \"id\": 3, " LOW
                   "}");
    assert_becomes(&alpaca,
                   "{\"instruction\": \"\", \"input\": \"a\", \"output\": \"b\", "
                   "\"system\": null, \"history\": null}",
                   "{\"messages\": [" ASK ", " ANSWER "], " LOW "}");
}

static void turns_of_sharegpt_become_messages(void **state)
{
    (void)state;
    assert_becomes(&sharegpt,
                   "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": "
                   "\"gpt\", \"value\": \"b\"}], \"system\": \"s\", \"tools\": \"\"}",
                   "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, " ASK ", " ANSWER
                   "], \"tools\": null, " LOW "}");
    assert_becomes(
        &sharegpt,
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": "
        "\"function_call\", \"value\": \"<think>t</think>{\\\"name\\\": \\\"f\\\", "
        "\\\"arguments\\\": {\\\"x\\\": 1}}\"}, {\"from\": \"observation\", \"value\": \"r\"}, "
        "{\"from\": \"gpt\", \"value\": \"b\"}], \"tools\": \"[{\\\"name\\\": \\\"f\\\"}]\"}",
        "{\"messages\": [" ASK
        ", {\"role\": \"assistant\", \"content\": \"\", "
        "\"reasoning_content\": \"t\", \"tool_calls\": [{\"name\": \"f\", \"arguments\": {\"x\": "
        "1}}]}, {\"role\": \"tool\", \"content\": \"r\"}, " ANSWER
        "], \"tools\": [{\"name\": \"f\"}], \"reasoning_effort\": \"high\"}");
    assert_becomes(&sharegpt,
                   "{\"conversations\": [{\"from\": \"system\", \"value\": \"1\"}, {\"from\": "
                   "\"human\", \"value\": \"a\"}, {\"from\": \"gpt\", \"value\": \"b\"}], "
                   "\"system\": \"2\"}",
                   "{\"messages\": [{\"role\": \"system\", \"content\": \"1\"}, " ASK ", " ANSWER
                   "], \"system (beside a system message)\": \"2\", " LOW "}");
}

static void a_think_block_in_front_is_the_reasoning(void **state)
{
    (void)state;
    assert_becomes(&named,
                   "{\"messages\": [" ASK
                   ", {\"role\": \"assistant\", \"content\": "
                   "\"\\n<think>\\nt\\n</think>\\n\\n6\"}]}",
                   "{\"messages\": [" ASK
                   ", {\"role\": \"assistant\", \"content\": \"\\n\\n6\", "
                   "\"reasoning_content\": \"\\nt\\n\"}], \"reasoning_effort\": \"high\"}");
    assert_becomes(&named,
                   "{\"reasoning_effort\": \"low\", \"messages\": [" ASK
                   ", {\"role\": \"assistant\", \"content\": "
                   "\"<think:opensource>t</think:opensource>6\"}]}",
                   "{\"messages\": [" ASK
                   ", {\"role\": \"assistant\", \"content\": \"6\", "
                   "\"reasoning_content\": \"t\"}], \"reasoning_effort\": \"low\"}");
    /* not in front, not closed, not of the user, and not in lines that are read as they are */
    assert_becomes(&named,
                   "{\"messages\": [{\"role\": \"user\", \"content\": \"<think>a</think>\"}, "
                   "{\"role\": \"assistant\", \"content\": \"see <think>x</think>\"}, " ASK
                   ", {\"role\": \"assistant\", \"content\": \"<think>x\"}]}",
                   "{\"messages\": [{\"role\": \"user\", \"content\": \"<think>a</think>\"}, "
                   "{\"role\": \"assistant\", \"content\": \"see <think>x</think>\"}, " ASK
                   ", {\"role\": \"assistant\", \"content\": \"<think>x\"}], " LOW "}");
    assert_becomes(
        &native, "{\"messages\": [{\"role\": \"assistant\", \"content\": \"<think>x</think>y\"}]}",
        "{\"messages\": [{\"role\": \"assistant\", \"content\": \"<think>x</think>y\"}]}");
}

static void reasoning_of_any_name_is_an_effort(void **state)
{
    (void)state;
    assert_becomes(&named,
                   "{\"messages\": [" ASK
                   ", {\"role\": \"assistant\", \"content\": \"b\", "
                   "\"thinking\": \"t\"}]}",
                   "{\"messages\": [" ASK
                   ", {\"role\": \"assistant\", \"content\": \"b\", "
                   "\"thinking\": \"t\"}], \"reasoning_effort\": \"high\"}");
}

static void what_apis_return_is_read_in_every_form(void **state)
{
    (void)state;
    assert_becomes(&native, "{\"system\": \"s\", \"messages\": [" ASK "]}",
                   "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, " ASK "]}");
    assert_becomes(&native,
                   "{\"system\": \"s\", \"messages\": [{\"role\": \"developer\", \"content\": "
                   "\"d\"}, " ASK "]}",
                   "{\"messages\": [{\"role\": \"system\", \"content\": \"d\"}, " ASK
                   "], \"system (beside a system message)\": \"s\"}");
    assert_becomes(&native,
                   "{\"messages\": [" ASK
                   "], \"chat_template_kwargs\": {\"reasoning_effort\": "
                   "\"high\"}}",
                   "{\"messages\": [" ASK "], \"reasoning_effort\": \"high\"}");
    assert_becomes(&native,
                   "{\"messages\": [{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": "
                   "[{\"function\": {\"name\": \"f\", \"arguments\": \"{\\\"x\\\": 1.0}\"}}]}], "
                   "\"tools\": \"[]\"}",
                   "{\"messages\": [{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": "
                   "[{\"function\": {\"name\": \"f\", \"arguments\": {\"x\": 1.0}}}]}], "
                   "\"tools\": []}");
    assert_becomes(&native,
                   "{\"messages\": [{\"role\": \"tool_call\", \"content\": \"{\\\"name\\\": "
                   "\\\"f\\\", \\\"arguments\\\": {}}\"}, {\"role\": \"tool_response\", "
                   "\"content\": \"r\"}]}",
                   "{\"messages\": [{\"role\": \"assistant\", \"content\": \"\", \"tool_calls\": "
                   "[{\"name\": \"f\", \"arguments\": {}}]}, {\"role\": \"tool\", \"content\": "
                   "\"r\"}]}");
}

#define REASONED                                                            \
    "{\"role\": \"assistant\", \"reasoning_content\": \"r\", \"content\": " \
    "\"<think>t</think>b\"}"
#define THOUGHT "{\"role\": \"assistant\", \"content\": \"<think>t</think>b\"}"
#define KWARGS  "\"chat_template_kwargs\": {\"enable_thinking\": "

static void a_line_may_switch_its_reasoning_off(void **state)
{
    const struct hy3_form *const forms[] = {&native, &named};
    hy3_status status;

    (void)state;
    json_decref(apply(&named, "{\"messages\": [" ASK ", " ANSWER "], " KWARGS "\"no\"}}", &status));
    assert_fails(HY3_EFORMAT, "must be true, false or null", status);
    json_decref(apply(&native,
                      "{\"reasoning_effort\": \"low\", \"messages\": [" ASK ", " ANSWER "], " KWARGS
                      "false}}",
                      &status));
    assert_fails(HY3_EFORMAT, "is false, and 'reasoning_effort' is not no_think", status);
    for (int i = 0; i < 2; i++) {
        assert_becomes(forms[i], "{\"messages\": [" ASK ", " REASONED "], " KWARGS "false}}",
                       "{\"messages\": [" ASK ", " ANSWER "], " LOW "}");
        assert_becomes(forms[i],
                       "{\"messages\": [" ASK ", " ANSWER
                       "], \"reasoning_effort\": \"no_think\", "
                       "\"chat_template_kwargs\": {\"enable_thinking\": false, \"x\": 1}}",
                       "{\"messages\": [" ASK ", " ANSWER
                       "], \"chat_template_kwargs\": {\"x\": 1}, " LOW "}");
        assert_becomes(forms[i], "{\"messages\": [" ASK ", " ANSWER "], " KWARGS "null}}",
                       "{\"messages\": [" ASK ", " ANSWER "], " LOW "}");
    }
    assert_becomes(&native, "{\"messages\": [" ASK ", " REASONED "], " KWARGS "true}}",
                   "{\"messages\": [" ASK ", " REASONED "], \"reasoning_effort\": \"high\"}");
    reading.effort = HY3_EFFORT_LOW;
    assert_becomes(&named, "{\"messages\": [" ASK ", " THOUGHT "], " KWARGS "true}}",
                   "{\"messages\": [" ASK
                   ", {\"role\": \"assistant\", \"content\": \"b\", "
                   "\"reasoning_content\": \"t\"}], \"reasoning_effort\": \"high\"}");
    reading = (struct hy3_reading){0};
}

static void what_is_forgotten_is_no_think_block_in_the_text_either(void **state)
{
    (void)state;
    reading.forgets_reasoning = true;
    assert_becomes(&native, "{\"messages\": [" ASK ", " REASONED ", " ASK ", " THOUGHT "]}",
                   "{\"messages\": [" ASK ", " ANSWER ", " ASK ", " THOUGHT "]}");
    assert_becomes(&native,
                   "{\"messages\": [" ASK
                   ", {\"role\": \"assistant\", \"content\": [{\"type\": \"text\", \"text\": "
                   "\" <think></think>\\n<think>t</think>b\"}]}, " ASK ", " ANSWER "]}",
                   "{\"messages\": [" ASK
                   ", {\"role\": \"assistant\", \"content\": [{\"type\": \"text\", \"text\": "
                   "\"b\"}]}, " ASK ", " ANSWER "]}");
    reading = (struct hy3_reading){.without_reasoning = true};
    assert_becomes(&native, "{\"messages\": [" ASK ", " REASONED ", " ASK ", " THOUGHT "]}",
                   "{\"messages\": [" ASK ", " ANSWER ", " ASK ", " ANSWER "], " LOW "}");
    reading = (struct hy3_reading){0};
}

/* Each with what says the same in alpaca's or sharegpt's own columns. */
static void a_form_is_found_by_the_keys_of_a_line(void **state)
{
    static const char *const same[] = {
        "{\"query\": \"a\", \"response\": \"b\"}",
        "{\"question\": \"a\", \"answer\": \"b\"}",
        "{\"prompt\": \"a\", \"completion\": \"b\", \"history\": []}",
        "{\"instruction\": \"a\", \"output\": \"b\", \"input\": \"\"}",
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"},"
        " {\"from\": \"gpt\", \"value\": \"b\"}]}",
        "{\"messages\": [{\"from\": \"user\", \"value\": \"a\"},"
        " {\"from\": \"assistant\", \"value\": \"b\"}]}",
        "{\"conversation\": [{\"role\": \"human\", \"content\": \"a\"},"
        " {\"role\": \"gpt\", \"content\": \"b\"}]}",
        "{\"conversation\": [" ASK ", " ANSWER "]}",
        "{\"messages\": [" ASK ", " ANSWER "]}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof same / sizeof *same; i++)
        assert_becomes(&guessed, same[i], "{\"messages\": [" ASK ", " ANSWER "], " LOW "}");
    assert_becomes(&guessed,
                   "{\"system_prompt\": \"s\", \"query\": \"a\", \"problem\": \"p\", "
                   "\"response\": \"b\", \"history\": [[\"a\", \"b\"]]}",
                   "{\"messages\": [{\"role\": \"system\", \"content\": \"s\"}, " ASK ", " ANSWER
                   ", " ASK ", " ANSWER "], \"problem\": \"p\", " LOW "}");
    assert_becomes(&guessed, "{\"instruction\": \"x\", \"input\": \"y\", \"output\": \"b\"}",
                   "{\"messages\": [{\"role\": \"user\", \"content\": \"x\\ny\"}, " ANSWER "], " LOW
                   "}");
}

static void what_cannot_be_turned_is_a_bad_line(void **state)
{
    static const struct {
        const struct hy3_form *form;
        const char *text, *words;
    } cases[] = {
        {&alpaca, "{\"instruction\": \"a\"}", "the answer, 'output', is missing"},
        {&alpaca, "{\"instruction\": \"a\", \"output\": 3}", "'output', must be a text"},
        {&alpaca, "{\"output\": \"b\"}", "the question, 'instruction', is missing"},
        {&alpaca, "{\"instruction\": [], \"output\": \"b\"}", "'instruction' must be a text"},
        {&alpaca, "{\"instruction\": \"a\", \"output\": \"b\", \"history\": [[\"a\"]]}",
         "entry 1 of 'history' must be a pair"},
        {&alpaca, "{\"instruction\": \"a\", \"output\": \"b\", \"system\": 1}",
         "'system' must be a text"},
        {&alpaca, "{\"instruction\": \"a\", \"output\": \"b\", \"tools\": \"x\"}",
         "'tools' is a text that is not JSON: x"},
        {&sharegpt, "{\"conversations\": [{\"from\": \"gpt\", \"value\": \"b\"}]}",
         "message 1: the role 'gpt' is out of turn"},
        {&sharegpt, "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}]}",
         "must end with an answer ('gpt')"},
        {&sharegpt, "{\"conversations\": [{\"from\": \"bot\", \"value\": \"a\"}]}",
         "message 1: unknown role 'bot'; it must be human or gpt"},
        {&sharegpt, "{\"conversations\": [{\"value\": \"a\"}]}", "message 1: 'from' is missing"},
        {&sharegpt, "{\"conversations\": [{\"from\": \"human\"}]}",
         "message 1: 'value' is missing"},
        {&sharegpt, "{\"conversations\": [{\"from\": \"human\", \"value\": null}]}",
         "message 1: 'value' must be a text"},
        {&sharegpt, "{\"messages\": [" ASK "]}", "'conversations' is missing"},
        {&sharegpt, "{\"conversations\": \"a\"}", "'conversations' must be a list"},
        {&sharegpt, "{\"conversations\": []}", "'conversations' is empty"},
        {&sharegpt,
         "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\", \"content\": \"c\"}]}",
         "'value' and 'content' are both given"},
        {&sharegpt,
         "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": "
         "\"function_call\", \"value\": \"f(x)\"}]}",
         "message 2: a call must be JSON"},
        {&guessed, "{\"question\": \"a\", \"problem\": \"a\", \"answer\": \"b\"}",
         "'question' and 'problem' may both be the query; keep one"},
        {&guessed, "{\"question\": \"a\", \"answer\": [\"b\"]}", "'answer', must be a text"},
        {&guessed, "{\"text\": \"a\"}", "the question, 'query', is missing"},
        {&native,
         "{\"messages\": [{\"role\": \"assistant\", \"tool_calls\": [{\"name\": \"f\", "
         "\"arguments\": \"x=1\"}]}]}",
         "message 1: 'arguments' is a text that is not JSON: x=1"},
    };

    hy3_status status;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_decref(apply(cases[i].form, cases[i].text, &status));
        assert_fails(HY3_EFORMAT, cases[i].words, status);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(alpaca_becomes_messages),
        cmocka_unit_test(turns_of_sharegpt_become_messages),
        cmocka_unit_test(a_think_block_in_front_is_the_reasoning),
        cmocka_unit_test(reasoning_of_any_name_is_an_effort),
        cmocka_unit_test(what_apis_return_is_read_in_every_form),
        cmocka_unit_test(a_line_may_switch_its_reasoning_off),
        cmocka_unit_test(what_is_forgotten_is_no_think_block_in_the_text_either),
        cmocka_unit_test(a_form_is_found_by_the_keys_of_a_line),
        cmocka_unit_test(what_cannot_be_turned_is_a_bad_line),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
