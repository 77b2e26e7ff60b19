/* SPDX-License-Identifier: Apache-2.0 */
/* hy3_generate - text from a (fine-tuned) model, to look at the result. */
#include "app/generate.h"
#include "comm/end.h"
#include "comm/launch.h"
#include "config/arguments.h"

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;
    struct hy3_generate *generate = NULL;
    struct hy3_generate_options o = {.max_new_tokens = 128, .seed = 42};
    const char *prompt = NULL, *messages = NULL;
    static const char *const devices[] = {HY3_DEVICES(HY3_CHOICE_WORD, ) NULL};
    enum hy3_device_choice device = HY3_DEVICE_auto;
    bool finished;
    const struct hy3_option table[] = {
        {HY3_ARGUMENT("MODEL_DIR", HY3_WORD, &o.directory, NULL, "model directory"),
         .path = HY3_PATH_MODEL},
        {HY3_ARGUMENT("prompt", HY3_TEXT, &prompt, "TEXT", "user message to answer")},
        {HY3_ARGUMENT("messages", HY3_TEXT, &messages, "FILE",
                      "JSONL file of conversations to answer"),
         .path = HY3_PATH_FILE},
        {HY3_ARGUMENT("adapter", HY3_TEXT, &o.adapter, "DIR", "PEFT adapter to apply"),
         .path = HY3_PATH_MODEL},
        {HY3_ARGUMENT("max_new_tokens", HY3_COUNT, &o.max_new_tokens, "N",
                      "maximum length of an answer (default 128)"),
         .count = {.low = 1}},
        {HY3_ARGUMENT("temperature", HY3_REAL, &o.temperature, "T",
                      "sampling temperature; 0: greedy (default)")},
        {HY3_ARGUMENT("seed", HY3_COUNT, &o.seed, "N", "random seed of sampling (default 42)")},
        {HY3_ARGUMENT("device", HY3_CHOICE, &device, "NAME", "auto, cpu or cuda (default auto)"),
         .words = devices},
        {.key = NULL},
    };
    const struct hy3_usage usage = {"hy3_generate", "Generates answers of a model.", table, NULL,
                                    false};

    HY3_TRY_DONE(hy3_start(&argc, &argv, usage.program));
    HY3_TRY_DONE(hy3_arguments_parse(MPI_COMM_WORLD, &usage, argc, argv, &finished));
    if (finished)
        goto done;
    if (!prompt == !messages)
        HY3_FAIL_DONE(HY3_EUSAGE, prompt ? "--prompt and --messages are both given; keep one"
                                         : "give either --prompt or --messages; see --help");
    if (prompt && *prompt == '\0')
        HY3_FAIL_DONE(HY3_EUSAGE, "--prompt is empty");
    o.device = devices[device];
    HY3_TRY_DONE(hy3_generate_open(MPI_COMM_WORLD, &o, &generate));
    HY3_TRY_DONE(prompt ? hy3_generate_prompt(generate, prompt, stdout)
                        : hy3_generate_file(generate, messages, stdout));
done:
    hy3_generate_close(generate);
    return hy3_finish(status);
}
