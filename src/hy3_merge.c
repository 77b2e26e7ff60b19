/* SPDX-License-Identifier: Apache-2.0 */
/* hy3_merge - merges a PEFT adapter into its model. */
#include "ckpt/adapter/merge.h"
#include "comm/end.h"
#include "comm/launch.h"
#include "config/arguments.h"

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;
    struct hy3_merge m = {.dtype = HY3_BF16};
    int64_t workers;
    bool finished;
    const struct hy3_option table[] = {
        {HY3_ARGUMENT("base_model_path", HY3_TEXT, &m.base, "DIR", "base model; only read"),
         .required = true, .path = HY3_PATH_MODEL},
        {HY3_ARGUMENT("adapter_model_path", HY3_TEXT, &m.adapter, "DIR", "PEFT adapter"),
         .required = true, .path = HY3_PATH_MODEL},
        {HY3_ARGUMENT("output_path", HY3_TEXT, &m.output, "DIR",
                      "new model directory; an unfinished merge is resumed"),
         .required = true, .path = HY3_PATH_OUTPUT},
        {HY3_ARGUMENT("save_dtype", HY3_CHOICE, &m.dtype, "TYPE",
                      "fp16, bf16 or fp32 (default bf16)"),
         .words = hy3_dtype_names},
        {HY3_ARGUMENT("workers", HY3_COUNT, &workers, "N",
                      "threads per rank (default: its share of the CPUs)"),
         .count = {.low = 1, .high = 1024}},
        {HY3_ARGUMENT("verbose", HY3_BOOL, &m.verbose, NULL,
                      "print what became of each tensor, as in merge_report.tsv")},
        {.key = NULL},
    };
    const struct hy3_usage usage = {"hy3_merge", "Merges a LoRA adapter into its base model.",
                                    table, NULL, false};

    HY3_TRY_DONE(hy3_start(&argc, &argv, usage.program));
    workers = hy3_threads();
    HY3_TRY_DONE(hy3_arguments_parse(MPI_COMM_WORLD, &usage, argc, argv, &finished));
    if (finished) /* --help, --version */
        goto done;
    m.workers = (int)workers;
    HY3_TRY_DONE(hy3_merge(MPI_COMM_WORLD, &m));
done:
    return hy3_finish(status);
}
