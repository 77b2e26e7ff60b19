/* SPDX-License-Identifier: Apache-2.0 */
/* form.c - LLaMA-Factory's converter.py, and the texts that stand for JSON in it. */
#include "text/form.h"

#include "base/memory.h"
#include "text/keys.h"
#include "text/line.h"
#include "text/reasoning.h"
#include "text/text.h"

#include <ctype.h>
#include <string.h>

enum { SHOWN = 60 };

/* A message of that role. content: borrowed. */
static hy3_status append(json_t *messages, const char *role, json_t *content)
{
    json_t *message = json_object();
    hy3_status status =
        message ? hy3_json_set(message, "role", json_string(role)) : hy3_json_no_memory();

    if (status == HY3_OK)
        status = hy3_json_set(message, "content", json_incref(content));
    if (status != HY3_OK) {
        json_decref(message);
        return status;
    }
    return json_array_append_new(messages, message) == 0 ? HY3_OK : hy3_json_no_memory();
}

/* A text that is JSON becomes what it says; "" becomes null. what: "'tools'". */
static hy3_status parse_text(json_t *object, const char *key, const char *what)
{
    json_t *text = json_object_get(object, key), *value;
    const char *at = json_string_value(text);
    size_t size = json_string_length(text);
    hy3_status status;

    if (!json_is_string(text))
        return HY3_OK;
    while (size > 0 && isspace((unsigned char)*at)) {
        at++;
        size--;
    }
    if (size == 0)
        return hy3_json_set(object, key, json_null());
    status = hy3_json_line(at, size, &value);
    if (status == HY3_ENOMEM)
        return status;
    if (status != HY3_OK)
        HY3_FAIL(HY3_EFORMAT, "%s is a text that is not JSON: %.*s", what, SHOWN, at);
    return hy3_json_set(object, key, value);
}

/* Takes the column out of the line under the name hy3 has for it. */
static hy3_status rename_key(json_t *object, const char *from, const char *to)
{
    json_t *value = *from ? json_object_get(object, from) : NULL;

    if (!value || strcmp(from, to) == 0)
        return HY3_OK;
    if (json_object_get(object, to))
        HY3_FAIL(HY3_EFORMAT, "'%.*s' and '%s' are both given; keep one", SHOWN, from, to);
    HY3_TRY(hy3_json_set(object, to, json_incref(value)));
    json_object_del(object, from);
    return HY3_OK;
}

/* tool_calls of a text that is JSON: {"name", "arguments"}, one or a list. */
static hy3_status set_calls(json_t *message, const char *text, size_t size, size_t number)
{
    hy3_status status = HY3_OK;
    json_t *value = NULL, *calls = json_array(), *call;
    size_t i;

    if (!calls)
        HY3_TRY_DONE(hy3_json_no_memory());
    status = hy3_json_line(text, size, &value);
    if (status == HY3_ENOMEM)
        goto done;
    if (status != HY3_OK || (!json_is_object(value) && !json_is_array(value)))
        HY3_FAIL_DONE(HY3_EFORMAT,
                      "message %zu: a call must be JSON, {\"name\": …, \"arguments\": …}, not %.*s",
                      number, (int)(size < SHOWN ? size : SHOWN), text);
    if (json_is_object(value) && json_array_append(calls, value) != 0)
        HY3_TRY_DONE(hy3_json_no_memory());
    json_array_foreach(value, i, call) if (json_array_append(calls, call) != 0)
        HY3_TRY_DONE(hy3_json_no_memory());
    HY3_TRY_DONE(hy3_json_set(message, "tool_calls", json_incref(calls)));
    status = hy3_json_set(message, "content", json_string(""));
done:
    json_decref(calls);
    json_decref(value);
    return status;
}

/* The call of a message whose role says that it is one. */
static hy3_status take_call(const struct hy3_dialect_names *names, json_t *message, size_t number)
{
    json_t *content = json_incref(json_object_get(message, "content"));
    const char *text = json_string_value(content);
    size_t parts[3], size = json_string_length(content);
    hy3_status status = hy3_json_set(message, "role", json_string("assistant"));

    if (!text)
        goto done; /* message.h says what is wrong */
    if (hy3_think_find(names, text, size, parts)) {
        HY3_TRY_DONE(hy3_json_set(message, "reasoning_content",
                                  json_stringn(text + parts[0], parts[1] - parts[0])));
        text += parts[2];
        size -= parts[2];
    }
    HY3_TRY_DONE(set_calls(message, text, size, number));
done:
    json_decref(content);
    return status;
}

/* Calls whose arguments are JSON as text, which is how APIs return them. */
static hy3_status read_arguments(json_t *message, size_t number)
{
    json_t *call;
    char what[64];
    size_t i;

    snprintf(what, sizeof what, "message %zu: 'arguments'", number);
    json_array_foreach(json_object_get(message, "tool_calls"), i, call)
    {
        json_t *function = json_object_get(call, "function");

        function = function ? function : call;
        if (json_is_object(function))
            HY3_TRY(parse_text(function, "arguments", what));
    }
    return HY3_OK;
}

/* Roles that are other names of ours. */
static hy3_status take_message(bool splits_think, const struct hy3_dialect_names *names,
                               json_t *message, size_t number)
{
    if (hy3_json_is_role(message, "developer"))
        HY3_TRY(hy3_json_set(message, "role", json_string("system")));
    else if (hy3_json_is_role(message, "tool_response"))
        HY3_TRY(hy3_json_set(message, "role", json_string("tool")));
    else if (hy3_json_is_role(message, "tool_call"))
        HY3_TRY(take_call(names, message, number));
    HY3_TRY(read_arguments(message, number));
    return splits_think && hy3_json_is_role(message, "assistant")
               ? hy3_reasoning_split(names, message)
               : HY3_OK;
}

/* A system message in front. content: borrowed. */
static hy3_status insert_system(json_t *messages, json_t *content)
{
    json_t *first = json_array();
    hy3_status status = first ? append(first, "system", content) : hy3_json_no_memory();

    if (status == HY3_OK && json_array_insert(messages, 0, json_array_get(first, 0)) != 0)
        status = hy3_json_no_memory();
    json_decref(first);
    return status;
}

/* The text of a column as the system message, unless the first message is one. */
static hy3_status add_system(json_t *line, json_t *messages, const char *name)
{
    json_t *system = json_incref(hy3_json_column(line, name)), *first = json_array_get(messages, 0);
    bool has_system = hy3_json_is_role(first, "system") || hy3_json_is_role(first, "developer");
    char beside[HY3_FORM_NAME + 40];
    hy3_status status = HY3_OK;

    if (system && !json_is_string(system))
        HY3_FAIL_DONE(HY3_EFORMAT, "'%.*s' must be a text", SHOWN, name);
    if (has_system && hy3_json_has_text(system) &&
        !json_equal(system, json_object_get(first, "content"))) {
        snprintf(beside, sizeof beside, "%s (beside a system message)", name);
        HY3_TRY_DONE(rename_key(line, name, beside));
    }
    json_object_del(line, name);
    if (!has_system && hy3_json_has_text(system))
        status = insert_system(messages, system);
done:
    json_decref(system);
    return status;
}

/* ------------------------------------------------------------------ alpaca */

/* Pairs of question and answer. */
static hy3_status add_history(json_t *messages, const json_t *history, const char *name)
{
    json_t *pair;
    size_t i;

    if (history && !json_is_array(history))
        HY3_FAIL(HY3_EFORMAT, "'%.*s' must be a list of pairs", SHOWN, name);
    json_array_foreach(history, i, pair)
    {
        if (json_array_size(pair) != 2 || !json_is_string(json_array_get(pair, 0)) ||
            !json_is_string(json_array_get(pair, 1)))
            HY3_FAIL(HY3_EFORMAT, "entry %zu of '%.*s' must be a pair of texts", i + 1, SHOWN,
                     name);
        HY3_TRY(append(messages, "user", json_array_get(pair, 0)));
        HY3_TRY(append(messages, "assistant", json_array_get(pair, 1)));
    }
    return HY3_OK;
}

/* Instruction and input, by one line end where both say something. */
static hy3_status add_question(json_t *messages, json_t *prompt, json_t *query)
{
    hy3_status status = HY3_OK;
    struct hy3_text text = {0};
    json_t *both = NULL;

    if (!hy3_json_has_text(prompt) || !hy3_json_has_text(query))
        return append(messages, "user", hy3_json_has_text(prompt) ? prompt : query);
    HY3_TRY_DONE(hy3_text_append(&text, json_string_value(prompt), json_string_length(prompt)));
    HY3_TRY_DONE(hy3_text_append(&text, "\n", 1));
    HY3_TRY_DONE(hy3_text_append(&text, json_string_value(query), json_string_length(query)));
    if (!(both = json_stringn(text.data, text.size)))
        HY3_TRY_DONE(hy3_json_no_memory());
    status = append(messages, "user", both);
done:
    json_decref(both);
    hy3_free(text.data);
    return status;
}

static hy3_status from_alpaca(const struct hy3_form *form, json_t *line, json_t *messages)
{
    const char *const names[] = {form->prompt, form->query, form->response, form->history};
    json_t *response = hy3_json_column(line, form->response);

    for (size_t i = 0; i < 2; i++)
        if (hy3_json_column(line, names[i]) && !json_is_string(hy3_json_column(line, names[i])))
            HY3_FAIL(HY3_EFORMAT, "'%.*s' must be a text", SHOWN, names[i]);
    if (!response)
        HY3_FAIL(HY3_EFORMAT, "the answer, '%.*s', is missing", SHOWN, form->response);
    if (!json_is_string(response))
        HY3_FAIL(HY3_EFORMAT, "the answer, '%.*s', must be a text", SHOWN, form->response);
    if (!hy3_json_has_text(hy3_json_column(line, form->prompt)) &&
        !hy3_json_has_text(hy3_json_column(line, form->query)))
        HY3_FAIL(HY3_EFORMAT, "the question, '%.*s', is missing", SHOWN, form->prompt);
    HY3_TRY(add_history(messages, hy3_json_column(line, form->history), form->history));
    HY3_TRY(add_question(messages, hy3_json_column(line, form->prompt),
                         hy3_json_column(line, form->query)));
    HY3_TRY(append(messages, "assistant", response));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        json_object_del(line, names[i]);
    return HY3_OK;
}

/* ---------------------------------------------------------------- sharegpt */

/* The place of a role in turn: user or observation, assistant or function. -1: system; -2: none. */
static int place_of(const struct hy3_form *form, const char *role)
{
    const char *const roles[] = {form->user_tag, form->assistant_tag, form->observation_tag,
                                 form->function_tag};

    for (int i = 0; i < 4; i++)
        if (*roles[i] && strcmp(role, roles[i]) == 0)
            return i;
    return *form->system_tag && strcmp(role, form->system_tag) == 0 ? -1 : -2;
}

/* The content of a turn, under the name that the file has for it. */
static hy3_status check_turn(const struct hy3_form *form, const json_t *content, size_t number)
{
    if (!content)
        HY3_FAIL(HY3_EFORMAT, "message %zu: '%.*s' is missing", number, SHOWN, form->content_tag);
    if (!json_is_string(content) && !json_is_array(content))
        HY3_FAIL(HY3_EFORMAT, "message %zu: '%.*s' must be a text", number, SHOWN,
                 form->content_tag);
    return HY3_OK;
}

/* One message under our names; `turn`: its number among those that are no system message. */
static hy3_status take_turn(const struct hy3_form *form, const struct hy3_dialect_names *names,
                            json_t *message, size_t number, int64_t *turn)
{
    static const char *const ours[] = {"user", "assistant", "tool", "assistant"};
    const char *role;
    int place;

    if (!json_is_object(message))
        HY3_FAIL(HY3_EFORMAT, "message %zu: it must be an object with '%.*s' and '%.*s'", number,
                 SHOWN, form->role_tag, SHOWN, form->content_tag);
    HY3_TRY(rename_key(message, form->role_tag, "role"));
    HY3_TRY(rename_key(message, form->content_tag, "content"));
    if (!(role = json_string_value(json_object_get(message, "role"))))
        HY3_FAIL(HY3_EFORMAT, "message %zu: '%.*s' is missing", number, SHOWN, form->role_tag);
    if (form->kind == HY3_FORM_SHAREGPT)
        HY3_TRY(check_turn(form, json_object_get(message, "content"), number));
    place = place_of(form, role);
    if (place == -1 && number == 1)
        return hy3_json_set(message, "role", json_string("system"));
    if (place < 0 && form->kind == HY3_FORM_MESSAGES)
        return HY3_OK; /* message.h knows our own names */
    if (place < 0)
        HY3_FAIL(HY3_EFORMAT, "message %zu: unknown role '%.*s'; it must be %.*s or %.*s", number,
                 SHOWN, role, SHOWN, form->user_tag, SHOWN, form->assistant_tag);
    if (place % 2 != *turn % 2 && form->kind == HY3_FORM_SHAREGPT)
        HY3_FAIL(HY3_EFORMAT, "message %zu: the role '%.*s' is out of turn", number, SHOWN, role);
    ++*turn;
    if (place == 3)
        return take_call(names, message, number);
    return hy3_json_set(message, "role", json_string(ours[place]));
}

static hy3_status from_turns(const struct hy3_form *form, const struct hy3_dialect_names *names,
                             json_t *messages)
{
    json_t *message;
    int64_t turn = 0;
    size_t i;

    json_array_foreach(messages, i, message) HY3_TRY(take_turn(form, names, message, i + 1, &turn));
    if (turn == 0 || (turn % 2 != 0 && form->kind == HY3_FORM_SHAREGPT))
        HY3_FAIL(HY3_EFORMAT, "the conversation must end with an answer ('%.*s')", SHOWN,
                 form->assistant_tag);
    return HY3_OK;
}

/* -------------------------------------------------------------- every form */

/* That system message in front, unless the line has one. */
static hy3_status add_default_system(const char *system, json_t *messages)
{
    json_t *message, *text;
    hy3_status status;
    size_t i;

    json_array_foreach(messages, i, message)
    {
        if (hy3_json_is_role(message, "system"))
            return HY3_OK;
    }
    if (!(text = json_string(system)))
        HY3_FAIL(HY3_EFORMAT, "default_system is not valid UTF-8");
    status = insert_system(messages, text);
    json_decref(text);
    return status;
}

/* The column of the messages, under the name hy3 has for it. */
static hy3_status take_column(const char *name, json_t *line)
{
    const json_t *value = json_object_get(line, name);

    if (!value)
        HY3_FAIL(HY3_EFORMAT, "'%.*s' is missing", SHOWN, name);
    if (!json_is_array(value))
        HY3_FAIL(HY3_EFORMAT, "'%.*s' must be a list", SHOWN, name);
    if (json_array_size(value) == 0)
        HY3_FAIL(HY3_EFORMAT, "'%.*s' is empty", SHOWN, name);
    return rename_key(line, name, "messages");
}

/* The list of messages of the line: its own, or a new one. */
static hy3_status get_messages(const struct hy3_form *form, json_t *line)
{
    if (form->kind == HY3_FORM_ALPACA) {
        HY3_TRY(rename_key(line, "messages", "messages (no column)"));
        return hy3_json_set(line, "messages", json_array());
    }
    return *form->messages ? take_column(form->messages, line) : HY3_OK;
}

hy3_status hy3_form_apply(const struct hy3_form *form, const struct hy3_reading *reading,
                          const struct hy3_dialect_names *names, json_t *line)
{
    json_t *messages, *message;
    size_t i;

    HY3_TRY(get_messages(form, line));
    messages = json_object_get(line, "messages");
    if (!json_is_array(messages) || json_array_size(messages) == 0) {
        if (form->kind != HY3_FORM_ALPACA)
            return HY3_OK; /* message.h says what is wrong */
    }
    if (form->kind == HY3_FORM_ALPACA)
        HY3_TRY(from_alpaca(form, line, messages));
    else if (*form->role_tag)
        HY3_TRY(from_turns(form, names, messages));
    if (form->kind == HY3_FORM_MESSAGES && *form->system == '\0')
        HY3_TRY(add_system(line, messages, "system"));
    else if (*form->system)
        HY3_TRY(add_system(line, messages, form->system));
    if (form->kind != HY3_FORM_MESSAGES &&
        *form->tools == '\0') /* noted as a key that is not read */
        HY3_TRY(rename_key(line, "tools", "tools (no column)"));
    HY3_TRY(rename_key(line, form->tools, "tools"));
    HY3_TRY(parse_text(line, "tools", "'tools'"));
    json_array_foreach(messages, i, message)
    {
        if (json_is_object(message))
            HY3_TRY(take_message(form->splits_think, names, message, i + 1));
    }
    if (reading->system)
        HY3_TRY(add_default_system(reading->system, messages));
    return hy3_reasoning_settle(form->splits_think, reading, names, line, messages);
}
