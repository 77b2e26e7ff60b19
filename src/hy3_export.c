/* SPDX-License-Identifier: Apache-2.0 */
/* hy3_export - a training checkpoint as a Hugging Face directory. */
#include "app/export.h"
#include "comm/end.h"
#include "comm/group.h"
#include "comm/launch.h"
#include "config/arguments.h"

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;
    struct hy3_export e = {.max_shard_size = "5GB"};
    bool finished;
    const struct hy3_argument table[] = {
        {"CHECKPOINT_DIR", HY3_ARG_WORD, &e.checkpoint, NULL, "checkpoint-N of a run"},
        {"OUTPUT_DIR", HY3_ARG_WORD, &e.output, NULL, "new or empty directory"},
        {"format", HY3_ARG_TEXT, &e.format, "LAYOUT", "inner or outer (as the base)"},
        {"dtype", HY3_ARG_TEXT, &e.dtype, "TYPE", "bf16, fp16 or fp32 (as the run computed)"},
        {"base", HY3_ARG_TEXT, &e.base, "DIR", "the model that was trained, if it has moved"},
        {"max_shard_size", HY3_ARG_TEXT, &e.max_shard_size, "SIZE", "of a weight file (5GB)"},
    };
    const struct hy3_usage usage = {"hy3_export",
                                    "Turns a training checkpoint into a Hugging Face directory.",
                                    table, sizeof table / sizeof *table};

    HY3_TRY_DONE(hy3_start(&argc, &argv, usage.program));
    HY3_TRY_DONE(hy3_arguments_parse(&usage, argc, argv, hy3_rank(MPI_COMM_WORLD) == 0, &finished));
    if (finished) /* --help, --version */
        goto done;
    HY3_TRY_DONE(hy3_export(MPI_COMM_WORLD, &e));
done:
    return hy3_finish(status);
}
