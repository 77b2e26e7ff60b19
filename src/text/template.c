/* SPDX-License-Identifier: Apache-2.0 */
/* template.c - renders a checked conversation; every rule is one of the chat template's. */
#include "text/template.h"

#include "base/memory.h"
#include "text/dialect.h"
#include "text/pyjson.h"

#include <ctype.h>

struct writer { /* keeps the first failure, so that the template reads as one */
    struct hy3_text *out;
    struct hy3_contents *contents; /* NULL: nobody asks */
    int64_t message;               /* whose content is being written, see struct hy3_content */
    const struct hy3_dialect_names *names;
    hy3_status status;
};

static void put_bytes(struct writer *w, const char *bytes, size_t size)
{
    if (w->status == HY3_OK)
        w->status = hy3_text_append(w->out, bytes, size);
}

static void put(struct writer *w, const char *text)
{
    put_bytes(w, text, strlen(text));
}

/* "<tool_call>" or "<tool_call:opensource>" */
static void put_tag(struct writer *w, const char *name)
{
    put(w, "<");
    put(w, name);
    put(w, w->names->suffix);
    put(w, ">");
}

/* What was written since `first` is the line's own. */
static void mark_content(struct writer *w, size_t first)
{
    struct hy3_contents *c = w->contents;

    if (!c || w->status != HY3_OK || w->out->size == first)
        return;
    w->status = hy3_grow(&c->items, &c->capacity, c->count + 1, sizeof *c->items);
    if (w->status == HY3_OK)
        c->items[c->count++] = (struct hy3_content){first, w->out->size, w->message};
}

static void put_own_bytes(struct writer *w, const char *bytes, size_t size)
{
    size_t first = w->out->size;

    put_bytes(w, bytes, size);
    mark_content(w, first);
}

static void put_string(struct writer *w, const json_t *string)
{
    put_own_bytes(w, json_string_value(string), json_string_length(string));
}

static void put_json(struct writer *w, const json_t *value)
{
    size_t first = w->out->size;

    if (w->status == HY3_OK)
        w->status = hy3_pyjson_append(w->out, value);
    mark_content(w, first);
}

/* A text, the joined texts of a list of parts, or nothing. */
static void put_content(struct writer *w, const json_t *message)
{
    const json_t *content = json_object_get(message, "content"), *part;
    size_t i;

    if (json_is_string(content))
        put_string(w, content);
    json_array_foreach(content, i, part)
        put_string(w, json_is_object(part) ? json_object_get(part, "text") : part);
}

static const char *role_of(const json_t *message)
{
    return json_string_value(json_object_get(message, "role"));
}

static bool is_role(const json_t *message, const char *role)
{
    return strcmp(role_of(message), role) == 0;
}

/* All system texts, wherever they stand, come first. */
static void put_system(struct writer *w, const json_t *messages)
{
    const json_t *message;
    size_t i;

    put(w, w->names->bos);
    json_array_foreach(messages, i, message) if (is_role(message, "system"))
    {
        w->message = (int64_t)i + 1;
        put_content(w, message);
    }
}

static void put_argument_form(struct writer *w, const char *number)
{
    put_tag(w, "arg_key");
    put(w, "{arg-key-");
    put(w, number);
    put(w, "}");
    put_tag(w, "/arg_key");
    put(w, "\n");
    put_tag(w, "arg_value");
    put(w, "{arg-value-");
    put(w, number);
    put(w, "}");
    put_tag(w, "/arg_value");
    put(w, "\n");
}

static void put_tools(struct writer *w, const json_t *tools, bool has_system)
{
    const json_t *tool;
    size_t i;

    w->message = 0;
    put(w, has_system ? "\n\n" : "");
    put(w,
        "# Tools\n\nYou may call one or more functions to assist with the user query."
        "\n\nYou are provided with function signatures within <tools></tools> XML tags:\n"
        "<tools>\n");
    json_array_foreach(tools, i, tool)
    {
        put(w, i > 0 ? "\n" : "");
        put_json(w, tool);
    }
    put(w, "\n</tools>\n\nFor function call returns, you should first print ");
    put_tag(w, "tool_calls");
    put(w, "\nFor each function call, you should return object like:\n");
    put_tag(w, "tool_call");
    put(w, "{function-name}");
    put_tag(w, "tool_sep");
    put(w, "\n");
    put_argument_form(w, "1");
    put_argument_form(w, "2");
    put(w, "...\n");
    put_tag(w, "/tool_call");
    put(w, "\nAt the end of function call returns, you should print ");
    put_tag(w, "/tool_calls");
}

static void put_call(struct writer *w, const json_t *call)
{
    const json_t *wrapped = json_object_get(call, "function");
    const json_t *function = wrapped ? wrapped : call;
    json_t *arguments = json_object_get(function, "arguments"), *value;
    const char *key;

    put_tag(w, "tool_call");
    put_string(w, json_object_get(function, "name"));
    put_tag(w, "tool_sep");
    put(w, "\n");
    json_object_foreach(arguments, key, value)
    {
        put_tag(w, "arg_key");
        put_own_bytes(w, key, strlen(key));
        put_tag(w, "/arg_key");
        put(w, "\n");
        put_tag(w, "arg_value");
        if (json_is_string(value))
            put_string(w, value);
        else
            put_json(w, value);
        put_tag(w, "/arg_value");
        put(w, "\n");
    }
    put_tag(w, "/tool_call");
    put(w, "\n");
}

static void put_calls(struct writer *w, const json_t *calls)
{
    const json_t *call;
    size_t i;

    put_tag(w, "tool_calls");
    put(w, "\n");
    json_array_foreach(calls, i, call) put_call(w, call);
    put_tag(w, "/tool_calls");
}

/* The first name that is given wins, as in transformers. */
static const json_t *reasoning_of(const json_t *message)
{
    static const char *const names[] = {"reasoning_content", "thinking", "reasoning"};
    const json_t *text;

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (json_is_string(text = json_object_get(message, names[i])))
            return text;
    return NULL;
}

static bool is_blank(const json_t *text)
{
    const char *at = json_string_value(text);

    for (size_t i = 0; i < json_string_length(text); i++)
        if (!isspace((unsigned char)at[i]))
            return false;
    return true;
}

/* The turn whose parts end at the given bytes; it ends here. */
static void mark_turn(struct writer *w, struct hy3_turns *turns, struct hy3_turn turn)
{
    if (!turns || w->status != HY3_OK)
        return;
    turn.end = w->out->size;
    turn.message = w->message;
    w->status = hy3_grow(&turns->items, &turns->capacity, turns->count + 1, sizeof *turns->items);
    if (w->status == HY3_OK)
        turns->items[turns->count++] = turn;
}

struct place { /* where a message stands */
    bool is_last;
    bool keeps_reasoning;
};

/* True if the message calls tools. */
static bool put_assistant(struct writer *w, const json_t *message, struct place place,
                          const struct hy3_template_options *options)
{
    const json_t *calls = json_object_get(message, "tool_calls");
    const json_t *reasoning = place.keeps_reasoning ? reasoning_of(message) : NULL;
    bool has_calls = json_array_size(calls) > 0;
    struct hy3_turn turn = {.thinks = reasoning && !is_blank(reasoning)};

    put(w, w->names->assistant);
    turn.first = w->out->size;
    if (options->raw_last_assistant && place.is_last && !has_calls) {
        put_content(w, message);
        return false;
    }
    put(w, w->names->think);
    if (reasoning)
        put_string(w, reasoning);
    put(w, w->names->end_think);
    turn.answer = w->out->size;
    put_content(w, message);
    if (has_calls)
        put_calls(w, calls);
    if (has_calls || options->is_training || !place.is_last)
        put(w, w->names->eos);
    mark_turn(w, options->turns, turn);
    return has_calls;
}

static void put_result(struct writer *w, const json_t *message)
{
    put_tag(w, "tool_response");
    put(w, "\n");
    put_content(w, message);
    put(w, "\n");
    put_tag(w, "/tool_response");
    put(w, "\n");
}

static void put_turns(struct writer *w, const json_t *messages, bool keep_all,
                      const struct hy3_template_options *options)
{
    size_t count = json_array_size(messages), first_kept = 0, i;
    bool in_results = false, fresh = true; /* fresh: the next result opens a group */
    const json_t *message;

    json_array_foreach(messages, i, message) if (is_role(message, "user")) first_kept = i + 1;
    json_array_foreach(messages, i, message)
    {
        struct place place = {i + 1 == count, keep_all || i >= first_kept};
        bool is_assistant = is_role(message, "assistant");

        w->message = (int64_t)i + 1;
        if (in_results && (is_assistant || is_role(message, "user"))) {
            put_tag(w, "/tool_responses");
            in_results = false;
        }
        if (is_role(message, "user")) {
            put(w, w->names->user);
            put_content(w, message);
        } else if (is_assistant) {
            fresh = put_assistant(w, message, place, options) || fresh;
        } else if (is_role(message, "tool")) {
            if (fresh) {
                put_tag(w, "tool_responses");
                put(w, "\n");
            }
            put_result(w, message);
            fresh = false;
            in_results = true;
        }
    }
    if (in_results)
        put_tag(w, "/tool_responses");
}

static bool keeps_all(enum hy3_dialect dialect, const struct hy3_template_options *options,
                      bool has_tools)
{
    if (options->is_training)
        return true;
    if (options->keep_thinking >= 0)
        return options->keep_thinking > 0;
    return dialect == HY3_DIALECT_FINAL && has_tools;
}

hy3_status hy3_template_render(const struct hy3_conversation *conversation,
                               enum hy3_dialect dialect, const struct hy3_template_options *options,
                               struct hy3_text *out)
{
    return hy3_template_render_marked(conversation, dialect, options, out, NULL);
}

hy3_status hy3_template_render_marked(const struct hy3_conversation *conversation,
                                      enum hy3_dialect dialect,
                                      const struct hy3_template_options *options,
                                      struct hy3_text *out, struct hy3_contents *contents)
{
    const json_t *document = hy3_conversation_json(conversation);
    const json_t *messages = json_object_get(document, "messages");
    const json_t *tools = json_object_get(document, "tools");
    const char *effort = json_string_value(json_object_get(document, "reasoning_effort"));
    struct writer w = {.out = out, .contents = contents, .names = hy3_dialect_names(dialect)};
    bool has_tools = json_array_size(tools) > 0;
    size_t begin = out->size;

    if (!effort)
        effort = "no_think";
    if (options->retry_tool_call)
        effort = "high";
    put_system(&w, messages);
    if (has_tools)
        put_tools(&w, tools, out->size - begin > strlen(w.names->bos));
    put(&w, w.names->mode);
    put(&w, "reasoning_effort:");
    put(&w, effort);
    put_turns(&w, messages, keeps_all(dialect, options, has_tools), options);
    if (options->add_generation_prompt && !options->retry_tool_call &&
        !is_role(json_array_get(messages, json_array_size(messages) - 1), "assistant")) {
        put(&w, w.names->assistant);
        put(&w, w.names->think);
        put(&w, strcmp(effort, "no_think") == 0 ? w.names->end_think : "");
    }
    return w.status;
}
