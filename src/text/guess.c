/* SPDX-License-Identifier: Apache-2.0 */
/* guess.c - which keys a line has. */
#include "text/guess.h"

#include <string.h>

/* Each list ends with NULL; of several names in a line the first counts if it is among them. */
static const char *const turns[] = {"messages", "conversations", "conversation", NULL};
static const char *const questions[] = {"query",    "prompt",  "input", "instruction",
                                        "question", "problem", NULL};
static const char *const answers[] = {"response", "answer",     "output",  "targets",
                                      "target",   "answer_key", "answers", "solution",
                                      "text",     "completion", "content", NULL};
static const char *const systems[] = {"system", "system_prompt", NULL};

static bool has(const json_t *line, const char *name)
{
    const json_t *value = json_object_get(line, name);

    return value && !json_is_null(value);
}

/* The one name of the list that the line has, "" if it has none. */
static hy3_status choose(const json_t *line, const char *const *names, char out[HY3_FORM_NAME])
{
    const char *found = NULL;

    out[0] = '\0';
    for (int i = 0; names[i]; i++) {
        if (!has(line, names[i]))
            continue;
        if (found && strcmp(found, names[0]) != 0)
            HY3_FAIL(HY3_EFORMAT, "'%s' and '%s' may both be the %s; keep one", found, names[i],
                     names[0]);
        found = found ? found : names[i];
    }
    snprintf(out, HY3_FORM_NAME, "%s", found ? found : "");
    return HY3_OK;
}

/* Messages with "from" and "value", or "role" and "content"; of human and gpt, or of user and
 * assistant. */
static void guess_tags(const json_t *messages, struct hy3_form *out)
{
    const json_t *message, *first = json_array_get(messages, 0);
    const char *role_tag = has(first, "from") ? "from" : "role";
    bool is_human = false;
    size_t i;

    json_array_foreach(messages, i, message)
    {
        const char *role = json_string_value(json_object_get(message, role_tag));

        is_human = is_human || (role && strcmp(role, "human") == 0);
    }
    if (!is_human && strcmp(role_tag, "role") == 0)
        return;
    snprintf(out->role_tag, HY3_FORM_NAME, "%s", role_tag);
    snprintf(out->content_tag, HY3_FORM_NAME, "%s", has(first, "value") ? "value" : "content");
    snprintf(out->user_tag, HY3_FORM_NAME, "%s", is_human ? "human" : "user");
    snprintf(out->assistant_tag, HY3_FORM_NAME, "%s", is_human ? "gpt" : "assistant");
    snprintf(out->system_tag, HY3_FORM_NAME, "system");
    snprintf(out->observation_tag, HY3_FORM_NAME, "observation");
    snprintf(out->function_tag, HY3_FORM_NAME, "function_call");
}

hy3_status hy3_form_guess(const struct hy3_form *form, const json_t *line, struct hy3_form *out)
{
    *out = *form;
    HY3_TRY(choose(line, turns, out->messages));
    if (*out->messages) {
        guess_tags(json_object_get(line, out->messages), out);
        if (strcmp(out->messages, turns[0]) == 0)
            out->messages[0] = '\0';
        return has(line, systems[0]) ? HY3_OK : choose(line, systems, out->system);
    }
    HY3_TRY(choose(line, answers, out->response));
    if (!*out->response)
        return HY3_OK; /* message.h says what is missing */
    out->kind = HY3_FORM_ALPACA;
    if (has(line, "instruction") && has(line, "input")) {
        snprintf(out->prompt, HY3_FORM_NAME, "instruction");
        snprintf(out->query, HY3_FORM_NAME, "input");
    } else {
        HY3_TRY(choose(line, questions, out->prompt));
        if (!*out->prompt)
            snprintf(out->prompt, HY3_FORM_NAME, "%s", questions[0]); /* it is missing */
    }
    snprintf(out->history, HY3_FORM_NAME, "history");
    snprintf(out->tools, HY3_FORM_NAME, "tools");
    return choose(line, systems, out->system);
}
