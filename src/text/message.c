/* SPDX-License-Identifier: Apache-2.0 */
/* message.c - checks one JSONL line before anything is rendered from it. */
#include "text/message.h"

#include "base/memory.h"
#include "text/guess.h"
#include "text/keys.h"
#include "text/labels.h"
#include "text/line.h"
#include "text/pyjson.h"
#include "text/reasoning.h"

struct hy3_conversation {
    json_t *document;
    json_t *unread; /* names of keys */
    int64_t null_contents;
    float *weights; /* [messages] of their losses */
    bool is_weighted;
};

enum { SHOWN_MAX = 60 }; /* characters of a user's text in a message */

static const char *type_name(const json_t *value)
{
    if (!value)
        return "nothing";
    switch (json_typeof(value)) {
    case JSON_ARRAY:
        return "a list";
    case JSON_STRING:
        return "a text";
    case JSON_TRUE:
        return "true";
    case JSON_FALSE:
        return "false";
    case JSON_NULL:
        return "null";
    default: /* also one that was too big for jansson */
        return "a number";
    }
}

static hy3_status parse_line(const char *line, size_t size, json_t **out)
{
    if (size >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
        line += 3;
        size -= 3;
    }
    HY3_TRY(hy3_json_line(line, size, out));
    if (!json_is_object(*out) || json_object_get(*out, HY3_BIG_NUMBER))
        HY3_FAIL(HY3_EFORMAT, "a line must be an object with 'messages', not %s", type_name(*out));
    return HY3_OK;
}

/* Whether the value is this text, to its end: a NUL may stand in a text. */
static bool is_word(const json_t *value, const char *word)
{
    return json_is_string(value) && json_string_length(value) == strlen(word) &&
           strcmp(json_string_value(value), word) == 0;
}

/* A text, null, absent, or a list of texts and {"type": "text", "text": …}. */
static hy3_status check_content(const json_t *content, const char *place, json_t *unread)
{
    json_t *part;
    size_t i;

    if (!content || json_is_null(content) || json_is_string(content))
        return HY3_OK;
    if (!json_is_array(content))
        HY3_FAIL(HY3_EFORMAT, "%s'content' must be a text", place);
    json_array_foreach(content, i, part)
    {
        if (json_is_string(part))
            continue;
        if (!is_word(json_object_get(part, "type"), "text"))
            HY3_FAIL(HY3_EFORMAT,
                     "%spart %zu of 'content' is no text (\"type\": \"text\"); other kinds cannot "
                     "be trained on",
                     place, i + 1);
        if (!json_is_string(json_object_get(part, "text")))
            HY3_FAIL(HY3_EFORMAT, "%spart %zu of 'content' has no 'text'", place, i + 1);
        HY3_TRY(hy3_keys_check(part, HY3_LEVEL_PART, place, unread));
    }
    return HY3_OK;
}

static hy3_status check_call(json_t *call, const char *place, json_t *unread)
{
    json_t *wrapped = json_object_get(call, "function");
    json_t *function = wrapped ? wrapped : call;

    if (!json_is_object(function))
        HY3_FAIL(HY3_EFORMAT, "%sa tool call must be an object with 'function'", place);
    if (!json_is_string(json_object_get(function, "name")))
        HY3_FAIL(HY3_EFORMAT, "%sa tool call needs a 'name'", place);
    if (!json_is_object(json_object_get(function, "arguments")) ||
        json_object_get(json_object_get(function, "arguments"), HY3_BIG_NUMBER))
        HY3_FAIL(HY3_EFORMAT, "%sthe 'arguments' of a tool call must be an object, not %s", place,
                 json_is_string(json_object_get(function, "arguments")) ? "JSON as text"
                                                                        : "another value");
    if (wrapped)
        HY3_TRY(hy3_keys_check(call, HY3_LEVEL_CALL, place, unread));
    return hy3_keys_check(function, wrapped ? HY3_LEVEL_FUNCTION : HY3_LEVEL_PLAIN_CALL, place,
                          unread);
}

static hy3_status check_calls(const json_t *calls, const char *place, json_t *unread)
{
    json_t *call;
    size_t i;

    if (!calls || json_is_null(calls))
        return HY3_OK;
    if (!json_is_array(calls))
        HY3_FAIL(HY3_EFORMAT, "%s'tool_calls' must be a list", place);
    json_array_foreach(calls, i, call) HY3_TRY(check_call(call, place, unread));
    return HY3_OK;
}

static hy3_status check_role(const json_t *message, const char *place)
{
    static const char *const roles[] = {"system", "user", "assistant", "tool"};
    const json_t *role = json_object_get(message, "role");

    if (!role)
        HY3_FAIL(HY3_EFORMAT, "%s'role' is missing", place);
    if (!json_is_string(role))
        HY3_FAIL(HY3_EFORMAT, "%s'role' must be a text", place);
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (is_word(role, roles[i]))
            return HY3_OK;
    HY3_FAIL(HY3_EFORMAT, "%sunknown role '%.*s'; it must be system, user, assistant or tool",
             place, SHOWN_MAX, json_string_value(role));
    return HY3_OK;
}

/* Reasoning and calls are the assistant's, and of several names of reasoning the first is read:
 * what else is given is noted. *has_more: the message says something beside its content. */
static hy3_status check_extras(const json_t *message, const char *place, json_t *unread,
                               bool *has_more)
{
    const json_t *calls = json_object_get(message, "tool_calls");
    const char *role = json_string_value(json_object_get(message, "role"));
    bool is_assistant = strcmp(role, "assistant") == 0, is_taken = !is_assistant;
    const char *empty = NULL; /* the name that is read, and says nothing */
    char why[24];

    snprintf(why, sizeof why, " (%s)", role);
    *has_more = is_assistant && json_array_size(calls) > 0;
    for (size_t i = 0; i < HY3_REASONING_NAMES; i++) {
        const json_t *text = json_object_get(message, hy3_reasoning_names[i]);

        if (text && !json_is_null(text) && !json_is_string(text))
            HY3_FAIL(HY3_EFORMAT, "%s'%s' must be a text", place, hy3_reasoning_names[i]);
        if (hy3_json_has_text(text) && empty)
            HY3_FAIL(HY3_EFORMAT,
                     "%s'%s' is empty and '%s' is not read; keep the one with the text", place,
                     empty, hy3_reasoning_names[i]);
        if (hy3_json_has_text(text) && is_taken)
            HY3_TRY(hy3_keys_note(HY3_LEVEL_MESSAGE, hy3_reasoning_names[i], why, unread));
        *has_more |= hy3_json_has_text(text) && !is_taken;
        if (json_is_string(text) && !is_taken && json_string_length(text) == 0)
            empty = hy3_reasoning_names[i];
        is_taken |= json_is_string(text);
    }
    if (!is_assistant && json_array_size(calls) > 0)
        HY3_TRY(hy3_keys_note(HY3_LEVEL_MESSAGE, "tool_calls", why, unread));
    return HY3_OK;
}

static const char *const weight_keys[] = {"loss_weight", "weight"};

/* A number from 0 to the largest weight, of an answer; left alone where the key is absent or null.
 */
static hy3_status read_weight(const json_t *message, const char *key, const char *place,
                              double *weight)
{
    const json_t *value = json_object_get(message, key);
    double number = json_number_value(value);

    if (!value || json_is_null(value))
        return HY3_OK;
    if (!json_is_number(value) || !(number >= 0 && number <= HY3_WEIGHT_MAX))
        HY3_FAIL(HY3_EFORMAT, "%s'%s' must be a number from 0 (not learned) to %d", place, key,
                 HY3_WEIGHT_MAX);
    if (!is_word(json_object_get(message, "role"), "assistant"))
        HY3_FAIL(HY3_EFORMAT,
                 "%s'%s' is for an answer of the assistant; other messages are not learned; remove "
                 "the key",
                 place, key);
    if (*weight >= 0 && *weight != number)
        HY3_FAIL(HY3_EFORMAT, "%s'%s' and '%s' differ; keep one", place, weight_keys[0],
                 weight_keys[1]);
    *weight = number;
    return HY3_OK;
}

/* "loss": true and false, as ms-swift has it, and "loss_weight". "loss": false on a message that is
 * not learned says what is so. */
static hy3_status check_weight(struct hy3_conversation *c, const json_t *message, size_t number,
                               const char *place)
{
    const json_t *loss = json_object_get(message, "loss");
    bool is_none = json_is_false(loss) || (json_is_number(loss) && json_number_value(loss) == 0);
    bool is_one = json_is_true(loss) || (json_is_number(loss) && json_number_value(loss) == 1);
    double weight = -1;

    if (loss && !json_is_null(loss) && !is_none && !is_one)
        HY3_FAIL(HY3_EFORMAT, "%s'loss' must be true or false; a number is a 'loss_weight'", place);
    if (is_one && !is_word(json_object_get(message, "role"), "assistant"))
        HY3_FAIL(HY3_EFORMAT, "%s'loss' is true, but only an answer of the assistant is learned",
                 place);
    for (size_t i = 0; i < sizeof weight_keys / sizeof *weight_keys; i++)
        HY3_TRY(read_weight(message, weight_keys[i], place, &weight));
    if ((is_none && weight > 0) || (is_one && weight == 0))
        HY3_FAIL(HY3_EFORMAT,
                 "%s'loss' says whether it is learned, the weight the opposite; keep one", place);
    c->weights[number - 1] = is_none ? 0 : weight < 0 ? 1 : (float)weight;
    if (is_word(json_object_get(message, "role"), "assistant"))
        c->is_weighted |= c->weights[number - 1] != 1;
    return HY3_OK;
}

/* Whether the key has been read. */
static bool is_read(const char *key, const json_t *value)
{
    for (size_t i = 0; i < HY3_REASONING_NAMES; i++)
        if (strcmp(key, hy3_reasoning_names[i]) == 0)
            return !hy3_json_has_text(value);
    if (strcmp(key, "tool_calls") == 0)
        return json_array_size(value) == 0;
    return strcmp(key, "role") == 0 || strcmp(key, "content") == 0 || strcmp(key, "loss") == 0 ||
           strcmp(key, weight_keys[0]) == 0 || strcmp(key, weight_keys[1]) == 0;
}

/* A key of the message that is not read; NULL: there is none. */
static const char *find_unread(json_t *message)
{
    const char *key;
    json_t *value;

    json_object_foreach(message, key, value)
    {
        if (!is_read(key, value))
            return key;
    }
    return NULL;
}

/* Whether the content is nothing: null, "", no parts, or parts that are "". */
static bool is_empty_content(const json_t *content)
{
    const json_t *part;
    size_t i;

    json_array_foreach(content, i, part)
    {
        if (json_string_length(json_is_object(part) ? json_object_get(part, "text") : part) > 0)
            return false;
    }
    return json_string_length(content) == 0;
}

/* A key with something in it where the answer, or a picture, may be, in other formats; NULL: there
 * is none. */
static const char *find_answer(json_t *message)
{
    static const char *const notes[] = {
        "name",          "id",          "tool_call_id", "type",   "from",      "source", "model",
        "date",          "created",     "created_at",   "time",   "timestamp", "author", "user",
        "lang",          "language",    "channel",      "status", "recipient", "tags",   "usage",
        "finish_reason", "stop_reason", "annotations",  "meta",   "metadata",  NULL};
    const char *key;
    json_t *value;

    json_object_foreach(message, key, value)
    {
        bool is_note = is_read(key, value);

        for (size_t i = 0; i < HY3_REASONING_NAMES; i++)
            is_note |= strcmp(key, hy3_reasoning_names[i]) == 0;
        for (size_t i = 0; notes[i]; i++)
            is_note |= strcmp(key, notes[i]) == 0;
        if (!is_note &&
            (hy3_json_has_text(value) || json_object_size(value) > 0 || json_array_size(value) > 0))
            return key;
    }
    return NULL;
}

/* Beside an empty content the answer may be in a key that is not read; a call is an answer. */
static hy3_status check_answer(json_t *message, const char *place)
{
    const char *key = find_answer(message);

    if (key && is_empty_content(json_object_get(message, "content")) &&
        json_array_size(json_object_get(message, "tool_calls")) == 0)
        HY3_FAIL(HY3_EFORMAT,
                 "%s'content' is empty and '%.*s' is not read; put the answer in 'content', or "
                 "remove the message",
                 place, SHOWN_MAX, key);
    return HY3_OK;
}

/* A message that says nothing would be learned as an empty answer. null alone is what the template
 * renders as nothing; beside another key the answer may be in that one. */
static hy3_status check_emptiness(struct hy3_conversation *c, json_t *message, const char *place)
{
    const json_t *content = json_object_get(message, "content");
    const char *key = find_unread(message);

    if (!content)
        HY3_FAIL(HY3_EFORMAT, "%s'content' is missing%s%.*s%s", place, key ? " ('" : "", SHOWN_MAX,
                 key ? key : "", key ? "' is not read)" : "");
    if (!json_is_null(content) && !(json_is_array(content) && json_array_size(content) == 0))
        return HY3_OK;
    if (key)
        HY3_FAIL(HY3_EFORMAT,
                 "%s'content' is null and '%.*s' is not read; an empty text would be learned; put "
                 "the answer in 'content', or remove the message",
                 place, SHOWN_MAX, key);
    c->null_contents++;
    return HY3_OK;
}

/* The older form of a call; without it the answer would be another one. */
static hy3_status check_function_call(const json_t *message, const char *place)
{
    const json_t *call = json_object_get(message, "function_call");

    if (call && !json_is_null(call))
        HY3_FAIL(HY3_EFORMAT,
                 "%s'function_call' is not read; write the call as 'tool_calls', its arguments as "
                 "an object",
                 place);
    return HY3_OK;
}

static hy3_status check_message(struct hy3_conversation *c, json_t *message, size_t number)
{
    char place[40];
    bool has_more;

    snprintf(place, sizeof place, "message %zu: ", number);
    if (!json_is_object(message))
        HY3_FAIL(HY3_EFORMAT, "%sit must be an object with 'role' and 'content'", place);
    HY3_TRY(hy3_keys_check(message, HY3_LEVEL_MESSAGE, place, c->unread));
    HY3_TRY(check_role(message, place));
    HY3_TRY(check_function_call(message, place));
    HY3_TRY(check_content(json_object_get(message, "content"), place, c->unread));
    HY3_TRY(check_calls(json_object_get(message, "tool_calls"), place, c->unread));
    HY3_TRY(check_weight(c, message, number, place));
    HY3_TRY(check_extras(message, place, c->unread, &has_more));
    if (!has_more)
        HY3_TRY(check_emptiness(c, message, place));
    return check_answer(message, place);
}

static hy3_status check_effort(const json_t *effort)
{
    const char *text = json_string_value(effort);

    if (!effort || json_is_null(effort))
        return HY3_OK;
    if (!text)
        HY3_FAIL(HY3_EFORMAT, "'reasoning_effort' must be no_think, low or high");
    if (!is_word(effort, "no_think") && !is_word(effort, "low") && !is_word(effort, "high"))
        HY3_FAIL(HY3_EFORMAT, "'reasoning_effort' is '%.*s'; it must be no_think, low or high",
                 SHOWN_MAX, text);
    return HY3_OK;
}

static hy3_status check_tools(const json_t *tools)
{
    const json_t *tool;
    size_t i;

    if (!tools || json_is_null(tools))
        return HY3_OK;
    if (!json_is_array(tools))
        HY3_FAIL(HY3_EFORMAT, "'tools' must be a list of objects");
    json_array_foreach(tools, i,
                       tool) if (!json_is_object(tool) || json_object_get(tool, HY3_BIG_NUMBER))
        HY3_FAIL(HY3_EFORMAT, "tool %zu must be an object", i + 1);
    return HY3_OK;
}

static hy3_status check_document(struct hy3_conversation *c)
{
    const json_t *messages = json_object_get(c->document, "messages");
    size_t count = json_array_size(messages);

    HY3_TRY(hy3_keys_check(c->document, HY3_LEVEL_LINE, "", c->unread));
    if (!messages)
        HY3_FAIL(HY3_EFORMAT, "'messages' is missing");
    if (!json_is_array(messages))
        HY3_FAIL(HY3_EFORMAT, "'messages' must be a list");
    if (count == 0)
        HY3_FAIL(HY3_EFORMAT, "'messages' is empty");
    HY3_TRY(check_effort(json_object_get(c->document, "reasoning_effort")));
    HY3_TRY(check_tools(json_object_get(c->document, "tools")));
    HY3_TRY(hy3_alloc(&c->weights, count, sizeof *c->weights));
    for (size_t i = 0; i < count; i++)
        HY3_TRY(check_message(c, json_array_get(messages, i), i + 1));
    return HY3_OK;
}

static hy3_status create(struct hy3_conversation **out)
{
    HY3_TRY(hy3_alloc(out, 1, sizeof **out));
    if (!((*out)->unread = json_object()))
        HY3_FAIL(HY3_ENOMEM, "out of host memory while reading a line");
    return HY3_OK;
}

hy3_status hy3_conversation_parse(const char *line, size_t size, struct hy3_conversation **out)
{
    static const struct hy3_form as_it_is;
    static const struct hy3_reading plain;

    return hy3_conversation_parse_form(line, size, &as_it_is, &plain,
                                       hy3_dialect_names(HY3_DIALECT_PREVIEW), out);
}

hy3_status hy3_conversation_parse_form(const char *line, size_t size, const struct hy3_form *form,
                                       const struct hy3_reading *reading,
                                       const struct hy3_dialect_names *names,
                                       struct hy3_conversation **out)
{
    hy3_status status = HY3_OK;
    struct hy3_conversation *conversation = NULL;
    struct hy3_form guessed;

    *out = NULL;
    HY3_TRY_DONE(create(&conversation));
    HY3_TRY_DONE(parse_line(line, size, &conversation->document));
    if (form->guesses) {
        HY3_TRY_DONE(hy3_form_guess(form, conversation->document, &guessed));
        form = &guessed;
    }
    HY3_TRY_DONE(hy3_form_apply(form, reading, names, conversation->document));
    if (!form->splits_think && !reading->without_reasoning &&
        hy3_think_is_text(names, conversation->document))
        HY3_TRY_DONE(hy3_keys_note(HY3_LEVEL_MESSAGE, "content",
                                   " begins with a think block, learned as text: see split_think",
                                   conversation->unread));
    HY3_TRY_DONE(check_document(conversation));
    *out = HY3_TAKE(conversation);
done:
    hy3_conversation_free(conversation);
    return status;
}

void hy3_conversation_free(struct hy3_conversation *conversation)
{
    if (!conversation)
        return;
    json_decref(conversation->document);
    json_decref(conversation->unread);
    hy3_free(conversation->weights);
    hy3_free(conversation);
}

hy3_status hy3_conversation_prompt(const char *prompt, struct hy3_conversation **out)
{
    hy3_status status = HY3_OK;
    struct hy3_conversation *conversation = NULL;

    *out = NULL;
    HY3_TRY_DONE(create(&conversation));
    conversation->document =
        json_pack("{s:[{s:s, s:s}]}", "messages", "role", "user", "content", prompt);
    if (!conversation->document)
        HY3_FAIL_DONE(HY3_EFORMAT, "the prompt is not valid UTF-8");
    *out = HY3_TAKE(conversation);
done:
    hy3_conversation_free(conversation);
    return status;
}

const json_t *hy3_conversation_json(const struct hy3_conversation *conversation)
{
    return conversation->document;
}

json_t *hy3_conversation_unread(const struct hy3_conversation *conversation)
{
    return conversation->unread;
}

bool hy3_conversation_is_weighted(const struct hy3_conversation *conversation)
{
    return conversation->is_weighted;
}

float hy3_conversation_weight(const struct hy3_conversation *conversation, int64_t message)
{
    return conversation->weights ? conversation->weights[message - 1] : 1;
}

int64_t hy3_conversation_null_contents(const struct hy3_conversation *conversation)
{
    return conversation->null_contents;
}
