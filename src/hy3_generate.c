/* SPDX-License-Identifier: Apache-2.0 */
/* hy3_generate - text from a (fine-tuned) model, to look at the result. */
#include "app/generate.h"
#include "comm/end.h"
#include "comm/group.h"
#include "comm/launch.h"
#include "config/arguments.h"

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;
    struct hy3_generate *generate = NULL;
    struct hy3_generate_options o = {.device = "auto", .max_new_tokens = 128};
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
    HY3_TRY_DONE(hy3_generate_open(MPI_COMM_WORLD, &o, &generate));
    HY3_TRY_DONE(prompt ? hy3_generate_prompt(generate, prompt, stdout)
                        : hy3_generate_file(generate, messages, stdout));
done:
    hy3_generate_close(generate);
    return hy3_finish(status);
}
