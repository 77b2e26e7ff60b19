/* SPDX-License-Identifier: Apache-2.0 */
/* hy3_generate - text from a (fine-tuned) model, to look at the result. */
#include "app/generate.h"
#include "base/file.h"
#include "base/memory.h"
#include "comm/comm.h"
#include "config/arguments.h"

/* Answers one line of JSONL or one prompt. */
static hy3_status answer_text(struct hy3_answerer *answerer, const char *text, size_t size,
                              bool is_prompt)
{
    hy3_status status = HY3_OK;
    struct hy3_conversation *conversation = NULL;

    HY3_TRY_DONE(is_prompt ? hy3_conversation_prompt(text, &conversation)
                           : hy3_conversation_parse(text, size, &conversation));
    HY3_TRY_DONE(hy3_answer(answerer, conversation, stdout));
done:
    hy3_conversation_free(conversation);
    return status;
}

static hy3_status answer_lines(struct hy3_answerer *answerer, const char *path)
{
    hy3_status status = HY3_OK;
    char *text = NULL, *end;
    size_t size, line = 0;

    HY3_TRY_DONE(hy3_file_read(path, (size_t)1 << 30, &text, &size));
    for (char *at = text; at < text + size; at = end + 1) {
        end = memchr(at, '\n', (size_t)(text + size - at));
        end = end ? end : text + size;
        line++;
        if (strspn(at, " \t\r") >= (size_t)(end - at))
            continue;
        status = answer_text(answerer, at, (size_t)(end - at), false);
        if (status == HY3_EFORMAT) {
            char reason[HY3_ERROR_MAX];

            snprintf(reason, sizeof reason, "%s", hy3_error_text());
            HY3_FAIL_DONE(HY3_EFORMAT, "%s:%zu: %s", path, line, reason);
        }
        HY3_TRY_DONE(status);
    }
done:
    hy3_free(text);
    return status;
}

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;
    struct hy3_answerer *answerer = NULL;
    struct hy3_answer_options o = {.device = "auto", .max_new_tokens = 128};
    const char *prompt = NULL, *messages = NULL;
    int64_t seed = 42;
    bool finished;
    const struct hy3_argument table[] = {
        {"MODEL_DIR", HY3_ARG_WORD, &o.directory, NULL, "a Hugging Face model directory"},
        {"prompt", HY3_ARG_TEXT, &prompt, "TEXT", "one user message to answer"},
        {"messages", HY3_ARG_TEXT, &messages, "FILE", "JSONL: answer every conversation of it"},
        {"adapter", HY3_ARG_TEXT, &o.adapter, "DIR", "a PEFT adapter of the model to answer with"},
        {"max_new_tokens", HY3_ARG_COUNT, &o.max_new_tokens, "N", "end an answer there (128)"},
        {"temperature", HY3_ARG_REAL, &o.temperature, "T", "0: the likeliest token (default)"},
        {"seed", HY3_ARG_COUNT, &seed, "N", "of the draws at a temperature (42)"},
        {"device", HY3_ARG_TEXT, &o.device, "NAME", "auto or cpu (auto)"},
    };
    const struct hy3_usage usage = {"hy3_generate", "Prints what a model answers.", table,
                                    sizeof table / sizeof *table};

    HY3_TRY_DONE(hy3_start(&argc, &argv, usage.program));
    HY3_TRY_DONE(hy3_arguments_parse(&usage, argc, argv, hy3_rank(MPI_COMM_WORLD) == 0, &finished));
    if (finished)
        goto done;
    if (!prompt == !messages)
        HY3_FAIL_DONE(HY3_EUSAGE, "give either --prompt or --messages; see --help");
    o.seed = (uint64_t)seed;
    HY3_TRY_DONE(hy3_answerer_open(MPI_COMM_WORLD, &o, &answerer));
    HY3_TRY_DONE(prompt ? answer_text(answerer, prompt, strlen(prompt), true)
                        : answer_lines(answerer, messages));
done:
    hy3_answerer_close(answerer);
    return hy3_finish(status);
}
