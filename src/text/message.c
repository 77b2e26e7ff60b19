/* SPDX-License-Identifier: Apache-2.0 */
/* message.c - checks one JSONL line before anything is rendered from it. */
#include "text/message.h"

#include "base/memory.h"
#include "text/pyjson.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <strings.h>

struct hy3_conversation {
    json_t *document;
};

enum { SHOWN_MAX = 60 }; /* characters of a user's text in a message */

/* The end of the JSON number at `at`, or `at` if there is none. */
static const char *number_end(const char *at, const char *end)
{
    const char *p = at, *digits;

    if (p < end && *p == '-')
        p++;
    if (p == end || !isdigit((unsigned char)*p))
        return at;
    digits = p;
    while (p < end && isdigit((unsigned char)*p))
        p++;
    if (*digits == '0' && p - digits > 1)
        return at;
    if (p < end && *p == '.') {
        digits = ++p;
        while (p < end && isdigit((unsigned char)*p))
            p++;
        if (p == digits)
            return at;
    }
    if (p < end && (*p == 'e' || *p == 'E')) {
        p++;
        if (p < end && (*p == '+' || *p == '-'))
            p++;
        digits = p;
        while (p < end && isdigit((unsigned char)*p))
            p++;
        if (p == digits)
            return at;
    }
    return p;
}

static hy3_status append_number(struct hy3_text *out, const char *number, size_t size)
{
    static const char before[] = "{\"" HY3_BIG_NUMBER "\":\"", after[] = "\"}";
    hy3_status status = HY3_OK;
    bool is_big;
    char *copy = NULL;

    HY3_TRY_DONE(hy3_alloc(&copy, size + 1, 1));
    memcpy(copy, number, size);
    errno = 0;
    if (strpbrk(copy, ".eE"))
        is_big = isinf(strtod(copy, NULL));
    else
        is_big = strtoll(copy, NULL, 10) != 0 && errno == ERANGE;
    if (is_big)
        HY3_TRY_DONE(hy3_text_append(out, before, sizeof before - 1));
    HY3_TRY_DONE(hy3_text_append(out, number, size));
    if (is_big)
        HY3_TRY_DONE(hy3_text_append(out, after, sizeof after - 1));
done:
    hy3_free(copy);
    return status;
}

/* Numbers that jansson cannot hold become objects that pyjson.c knows: a field that is not read
 * must not make a line invalid. */
static hy3_status wrap_numbers(const char *line, size_t size, struct hy3_text *out)
{
    const char *end = line + size, *begin = line, *stop;
    bool in_string = false;

    for (const char *at = line; at < end; at++) {
        if (in_string && *at == '\\' && at + 1 < end)
            at++;
        else if (*at == '"')
            in_string = !in_string;
        else if (!in_string && (stop = number_end(at, end)) > at) {
            HY3_TRY(hy3_text_append(out, begin, (size_t)(at - begin)));
            HY3_TRY(append_number(out, at, (size_t)(stop - at)));
            begin = stop;
            at = stop - 1;
        }
    }
    return hy3_text_append(out, begin, (size_t)(end - begin));
}

static hy3_status parse_line(const char *line, size_t size, json_t **out)
{
    hy3_status status = HY3_OK;
    struct hy3_text wrapped = {0};
    json_error_t error;

    if (size >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
        line += 3;
        size -= 3;
    }
    *out = json_loadb(line, size, JSON_ALLOW_NUL, &error);
    if (!*out && json_error_code(&error) == json_error_numeric_overflow) {
        HY3_TRY_DONE(wrap_numbers(line, size, &wrapped));
        *out = json_loadb(wrapped.data, wrapped.size, JSON_ALLOW_NUL, &error);
    }
    if (!*out && json_error_code(&error) == json_error_out_of_memory)
        HY3_FAIL_DONE(HY3_ENOMEM, "out of host memory while reading a line");
    if (!*out)
        HY3_FAIL_DONE(HY3_EFORMAT, "not valid JSON at byte %d: %.200s", error.position, error.text);
    if (!json_is_object(*out))
        HY3_FAIL_DONE(HY3_EFORMAT, "a line must be an object with 'messages', not a list");
done:
    hy3_free(wrapped.data);
    return status;
}

/* Levenshtein's distance without regard to case; large for words over 31 characters. */
static size_t distance(const char *a, const char *b)
{
    size_t row[32], n = strlen(b), diagonal, above;

    if (strlen(a) > 31 || n > 31)
        return 100;
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 0; a[i] != '\0'; i++) {
        diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            size_t change = diagonal + (tolower((unsigned char)a[i]) != b[j]);

            diagonal = above = row[j + 1];
            above = above < row[j] ? above + 1 : row[j] + 1;
            row[j + 1] = change < above ? change : above;
        }
    }
    return row[n];
}

/* An unknown key is ignored unless it looks like a misspelling of a known one that is absent. */
static hy3_status check_spelling(json_t *object, const char *const *known, const char *place)
{
    const char *key;
    json_t *value;

    json_object_foreach(object, key, value)
    {
        bool is_known = false;

        for (size_t i = 0; known[i] && !is_known; i++)
            is_known = strcmp(key, known[i]) == 0;
        for (size_t i = 0; known[i] && !is_known; i++)
            if (!json_object_get(object, known[i]) &&
                distance(key, known[i]) <= (strlen(known[i]) < 6 ? 1 : 2))
                HY3_FAIL(HY3_EFORMAT, "%sunknown key '%s'; did you mean '%s'?", place, key,
                         known[i]);
    }
    return HY3_OK;
}

/* A text, null, absent, or a list of texts and {"type": "text", "text": …}. */
static hy3_status check_content(const json_t *content, const char *place)
{
    const json_t *part, *type;
    size_t i;

    if (!content || json_is_null(content) || json_is_string(content))
        return HY3_OK;
    if (!json_is_array(content))
        HY3_FAIL(HY3_EFORMAT, "%s'content' must be a text", place);
    json_array_foreach(content, i, part)
    {
        if (json_is_string(part))
            continue;
        type = json_object_get(part, "type");
        if (!json_is_string(type) || strcmp(json_string_value(type), "text") != 0)
            HY3_FAIL(HY3_EFORMAT,
                     "%spart %zu of 'content' is no text (\"type\": \"text\"); other kinds cannot "
                     "be trained on",
                     place, i + 1);
        if (!json_is_string(json_object_get(part, "text")))
            HY3_FAIL(HY3_EFORMAT, "%spart %zu of 'content' has no 'text'", place, i + 1);
    }
    return HY3_OK;
}

static hy3_status check_call(const json_t *call, const char *place)
{
    const json_t *wrapped = json_object_get(call, "function");
    const json_t *function = wrapped ? wrapped : call;

    if (!json_is_object(function))
        HY3_FAIL(HY3_EFORMAT, "%sa tool call must be an object with 'function'", place);
    if (!json_is_string(json_object_get(function, "name")))
        HY3_FAIL(HY3_EFORMAT, "%sa tool call needs a 'name'", place);
    if (!json_is_object(json_object_get(function, "arguments")) ||
        json_object_get(json_object_get(function, "arguments"), HY3_BIG_NUMBER))
        HY3_FAIL(HY3_EFORMAT, "%sthe 'arguments' of a tool call must be an object, not %s", place,
                 json_is_string(json_object_get(function, "arguments")) ? "JSON as text"
                                                                        : "another value");
    return HY3_OK;
}

static hy3_status check_calls(const json_t *calls, const char *place)
{
    const json_t *call;
    size_t i;

    if (!calls || json_is_null(calls))
        return HY3_OK;
    if (!json_is_array(calls))
        HY3_FAIL(HY3_EFORMAT, "%s'tool_calls' must be a list", place);
    json_array_foreach(calls, i, call) HY3_TRY(check_call(call, place));
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
        if (strlen(roles[i]) == json_string_length(role) &&
            strcmp(json_string_value(role), roles[i]) == 0)
            return HY3_OK;
    HY3_FAIL(HY3_EFORMAT, "%sunknown role '%.*s'; it must be system, user, assistant or tool",
             place, SHOWN_MAX, json_string_value(role));
    return HY3_OK;
}

static hy3_status check_message(json_t *message, size_t number)
{
    static const char *const known[] = {"role", "content", "reasoning_content", "tool_calls", NULL};
    static const char *const reasoning[] = {"reasoning_content", "thinking", "reasoning"};
    char place[40];

    snprintf(place, sizeof place, "message %zu: ", number);
    if (!json_is_object(message))
        HY3_FAIL(HY3_EFORMAT, "%sit must be an object with 'role' and 'content'", place);
    HY3_TRY(check_spelling(message, known, place));
    HY3_TRY(check_role(message, place));
    HY3_TRY(check_content(json_object_get(message, "content"), place));
    for (size_t i = 0; i < sizeof reasoning / sizeof *reasoning; i++) {
        const json_t *text = json_object_get(message, reasoning[i]);

        if (text && !json_is_null(text) && !json_is_string(text))
            HY3_FAIL(HY3_EFORMAT, "%s'%s' must be a text", place, reasoning[i]);
    }
    return check_calls(json_object_get(message, "tool_calls"), place);
}

static hy3_status check_effort(const json_t *effort)
{
    const char *text = json_string_value(effort);

    if (!effort || json_is_null(effort))
        return HY3_OK;
    if (!text)
        HY3_FAIL(HY3_EFORMAT, "'reasoning_effort' must be no_think, low or high");
    if (strcmp(text, "no_think") != 0 && strcmp(text, "low") != 0 && strcmp(text, "high") != 0)
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

static hy3_status check_document(json_t *document)
{
    static const char *const known[] = {"messages", "reasoning_effort", "tools", NULL};
    const json_t *messages = json_object_get(document, "messages");
    size_t count = json_array_size(messages);

    HY3_TRY(check_spelling(document, known, ""));
    if (!messages)
        HY3_FAIL(HY3_EFORMAT, "'messages' is missing");
    if (!json_is_array(messages))
        HY3_FAIL(HY3_EFORMAT, "'messages' must be a list");
    if (count == 0)
        HY3_FAIL(HY3_EFORMAT, "'messages' is empty");
    for (size_t i = 0; i < count; i++)
        HY3_TRY(check_message(json_array_get(messages, i), i + 1));
    HY3_TRY(check_effort(json_object_get(document, "reasoning_effort")));
    return check_tools(json_object_get(document, "tools"));
}

hy3_status hy3_conversation_parse(const char *line, size_t size, struct hy3_conversation **out)
{
    hy3_status status = HY3_OK;
    struct hy3_conversation *conversation = NULL;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&conversation, 1, sizeof *conversation));
    HY3_TRY_DONE(parse_line(line, size, &conversation->document));
    HY3_TRY_DONE(check_document(conversation->document));
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
    hy3_free(conversation);
}

hy3_status hy3_conversation_prompt(const char *prompt, struct hy3_conversation **out)
{
    hy3_status status = HY3_OK;
    struct hy3_conversation *conversation = NULL;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&conversation, 1, sizeof *conversation));
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
