/* SPDX-License-Identifier: Apache-2.0 */
/* reasoning.c - think blocks and efforts. */
#include "text/reasoning.h"

#include "text/keys.h"
#include "text/line.h"

#include <ctype.h>
#include <string.h>

/* What chat_template_kwargs of a line say about its reasoning. */
enum thinking { THINKING_UNSAID, THINKING_AUTO, THINKING_OFF };

bool hy3_think_find(const struct hy3_dialect_names *names, const char *text, size_t size,
                    size_t parts[3])
{
    const char *const tags[][2] = {{names->think, names->end_think}, {"<think>", "</think>"}};
    size_t at = 0;

    while (at < size && isspace((unsigned char)text[at]))
        at++;
    for (size_t i = 0; i < 2; i++) {
        size_t begin = strlen(tags[i][0]), end = strlen(tags[i][1]);
        const char *stop;

        if (size - at < begin || memcmp(text + at, tags[i][0], begin) != 0)
            continue;
        stop = memmem(text + at + begin, size - at - begin, tags[i][1], end);
        if (!stop)
            continue;
        parts[0] = at + begin;
        parts[1] = (size_t)(stop - text);
        parts[2] = parts[1] + end;
        return true;
    }
    return false;
}

/* Whether the message has a reasoning of its own, by any of its names. */
static bool has_reasoning(const json_t *message)
{
    for (size_t i = 0; i < HY3_REASONING_NAMES; i++)
        if (hy3_json_has_text(json_object_get(message, hy3_reasoning_names[i])))
            return true;
    return false;
}

/* The text of a message: its content, or the first part of it. *holder, *key: where it stands. */
static json_t *text_of(json_t *message, json_t **holder, const char **key)
{
    json_t *content = json_object_get(message, "content");

    *holder = json_is_array(content) ? json_array_get(content, 0) : message;
    *key = json_is_array(content) ? "text" : "content";
    return json_object_get(*holder, *key);
}

hy3_status hy3_reasoning_split(const struct hy3_dialect_names *names, json_t *message)
{
    json_t *holder, *content;
    const char *key, *text;
    size_t parts[3];

    content = text_of(message, &holder, &key);
    text = json_string_value(content);
    if (!text || has_reasoning(message) ||
        !hy3_think_find(names, text, json_string_length(content), parts))
        return HY3_OK;
    HY3_TRY(hy3_json_set(message, "reasoning_content",
                         json_stringn(text + parts[0], parts[1] - parts[0])));
    return hy3_json_set(holder, key,
                        json_stringn(text + parts[2], json_string_length(content) - parts[2]));
}

/* Takes think blocks off the beginning of an answer. */
static hy3_status cut_think(const struct hy3_dialect_names *names, json_t *message)
{
    json_t *holder, *content;
    const char *key, *text;
    size_t parts[3], at = 0, size;

    content = text_of(message, &holder, &key);
    text = json_string_value(content);
    size = json_string_length(content);
    while (text && hy3_think_find(names, text + at, size - at, parts))
        at += parts[2];
    return at > 0 ? hy3_json_set(holder, key, json_stringn(text + at, size - at)) : HY3_OK;
}

/* Takes the reasoning out of the answers among the first `count` messages, wherever it stands. */
static hy3_status remove_reasoning(const struct hy3_dialect_names *names, json_t *messages,
                                   size_t count)
{
    for (size_t i = 0; i < count; i++) {
        json_t *message = json_array_get(messages, i);

        if (!hy3_json_is_role(message, "assistant"))
            continue;
        for (size_t name = 0; name < HY3_REASONING_NAMES; name++)
            json_object_del(message, hy3_reasoning_names[name]);
        HY3_TRY(cut_think(names, message));
    }
    return HY3_OK;
}

size_t hy3_reasoning_last_turn(const struct hy3_reading *reading, const json_t *messages)
{
    const char *role = reading->ends_in_round ? "user" : "assistant";
    size_t at = json_array_size(messages);

    while (at > 0 && !hy3_json_is_role(json_array_get(messages, at - 1), role))
        at--;
    return at > 0 ? at - 1 : 0;
}

/* The reasoning that is not to be learned. */
static hy3_status forget(const struct hy3_reading *reading, bool forgets_all,
                         const struct hy3_dialect_names *names, json_t *messages)
{
    if (forgets_all)
        return remove_reasoning(names, messages, json_array_size(messages));
    if (reading->forgets_reasoning)
        return remove_reasoning(names, messages, hy3_reasoning_last_turn(reading, messages));
    return HY3_OK;
}

/* enable_thinking of chat_template_kwargs, which is taken out. */
static hy3_status take_thinking(json_t *line, enum thinking *thinking)
{
    json_t *arguments = json_object_get(line, "chat_template_kwargs");
    const json_t *value = json_object_get(arguments, "enable_thinking");

    *thinking = !value ? THINKING_UNSAID : json_is_false(value) ? THINKING_OFF : THINKING_AUTO;
    if (value && !json_is_null(value) && !json_is_boolean(value))
        HY3_FAIL(HY3_EFORMAT,
                 "'enable_thinking' of 'chat_template_kwargs' must be true, false or null");
    json_object_del(arguments, "enable_thinking");
    return HY3_OK;
}

/* The word for lines that do not say it; NULL: the template's own. */
static const char *default_effort(bool splits_think, enum hy3_effort effort, json_t *messages)
{
    json_t *message;
    size_t i;

    switch (effort) {
    case HY3_EFFORT_LOW:
        return "low";
    case HY3_EFFORT_HIGH:
        return "high";
    case HY3_EFFORT_NO_THINK:
        return "no_think";
    case HY3_EFFORT_BY_FORM:
        if (!splits_think)
            return NULL;
        break;
    case HY3_EFFORT_AUTO:
        break;
    }
    json_array_foreach(messages, i, message)
    {
        if (hy3_json_is_role(message, "assistant") && has_reasoning(message))
            return "high";
    }
    return "no_think";
}

/* Takes reasoning_effort of chat_template_kwargs into the line. */
static hy3_status take_effort(json_t *line)
{
    json_t *arguments = json_object_get(line, "chat_template_kwargs");
    json_t *effort = json_object_get(arguments, "reasoning_effort");

    if (hy3_json_column(arguments, "reasoning_effort") &&
        hy3_json_column(line, "reasoning_effort") &&
        !json_equal(effort, hy3_json_column(line, "reasoning_effort")))
        HY3_FAIL(HY3_EFORMAT,
                 "'reasoning_effort' and that of 'chat_template_kwargs' differ; keep "
                 "one");
    if (effort && !hy3_json_column(line, "reasoning_effort"))
        HY3_TRY(hy3_json_set(line, "reasoning_effort", json_incref(effort)));
    json_object_del(arguments, "reasoning_effort");
    if (json_is_object(arguments) && json_object_size(arguments) == 0)
        json_object_del(line, "chat_template_kwargs");
    return HY3_OK;
}

/* reasoning_effort of the line: its own, or where it does not say it, the default. */
static hy3_status set_effort(bool splits_think, const struct hy3_reading *reading,
                             enum thinking thinking, json_t *line, json_t *messages)
{
    enum hy3_effort effort = thinking == THINKING_AUTO ? HY3_EFFORT_AUTO : reading->effort;
    const json_t *own;
    const char *word;

    HY3_TRY(take_effort(line));
    own = hy3_json_column(line, "reasoning_effort");
    if (thinking == THINKING_OFF && own &&
        (!json_is_string(own) || strcmp(json_string_value(own), "no_think") != 0))
        HY3_FAIL(HY3_EFORMAT,
                 "'enable_thinking' of 'chat_template_kwargs' is false, and 'reasoning_effort' is "
                 "not no_think; keep one");
    if (thinking == THINKING_OFF || reading->without_reasoning)
        return hy3_json_set(line, "reasoning_effort", json_string("no_think"));
    if (own || !(word = default_effort(splits_think, effort, messages)))
        return HY3_OK;
    return hy3_json_set(line, "reasoning_effort", json_string(word));
}

hy3_status hy3_reasoning_settle(bool splits_think, const struct hy3_reading *reading,
                                const struct hy3_dialect_names *names, json_t *line,
                                json_t *messages)
{
    enum thinking thinking;

    HY3_TRY(take_thinking(line, &thinking));
    HY3_TRY(
        forget(reading, reading->without_reasoning || thinking == THINKING_OFF, names, messages));
    return set_effort(splits_think, reading, thinking, line, messages);
}

bool hy3_think_is_text(const struct hy3_dialect_names *names, const json_t *line)
{
    json_t *message;
    size_t i, parts[3];

    json_array_foreach(json_object_get(line, "messages"), i, message)
    {
        const char *key;
        json_t *holder;
        const json_t *content = text_of(message, &holder, &key);

        if (hy3_json_is_role(message, "assistant") && json_is_string(content) &&
            hy3_think_find(names, json_string_value(content), json_string_length(content), parts))
            return true;
    }
    return false;
}
