/* SPDX-License-Identifier: Apache-2.0 */
/* hy3_export - a training checkpoint as a Hugging Face directory. */
#include "app/export.h"
#include "base/dtype.h"
#include "ckpt/hf/names.h"
#include "comm/end.h"
#include "comm/launch.h"
#include "config/arguments.h"

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;
    struct hy3_export e = {.names = -1, .dtype = -1, .max_shard_bytes = 5000000000};
    bool finished;
    const struct hy3_option table[] = {
        {HY3_ARGUMENT("CHECKPOINT_DIR", HY3_WORD, &e.checkpoint, NULL, "checkpoint-N of a run"),
         .path = HY3_PATH_INPUT},
        {HY3_ARGUMENT("OUTPUT_DIR", HY3_WORD, &e.output, NULL, "new or empty directory"),
         .path = HY3_PATH_OUTPUT},
        {HY3_ARGUMENT("format", HY3_CHOICE, &e.names, "LAYOUT",
                      "inner or outer (default: as the base model)"),
         .words = hy3_names_words},
        {HY3_ARGUMENT("dtype", HY3_CHOICE, &e.dtype, "TYPE",
                      "bf16, fp16 or fp32 (default: the precision of the run)"),
         .words = hy3_dtype_names},
        {HY3_ARGUMENT("base", HY3_TEXT, &e.base, "DIR", "base model, if it has moved"),
         .path = HY3_PATH_MODEL},
        {HY3_ARGUMENT("max_shard_size", HY3_SIZE, &e.max_shard_bytes, "SIZE",
                      "maximum size of a shard (default 5GB)")},
        {.key = NULL},
    };
    const struct hy3_usage usage = {
        "hy3_export", "Exports a training checkpoint as a model directory.", table, NULL, false};

    HY3_TRY_DONE(hy3_start(&argc, &argv, usage.program));
    HY3_TRY_DONE(hy3_arguments_parse(MPI_COMM_WORLD, &usage, argc, argv, &finished));
    if (finished) /* --help, --version */
        goto done;
    HY3_TRY_DONE(hy3_export(MPI_COMM_WORLD, &e));
done:
    return hy3_finish(status);
}
