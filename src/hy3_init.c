/* SPDX-License-Identifier: Apache-2.0 */
/* hy3_init - a small random checkpoint, for the quick start, tests and benchmarks. */
#include "app/random_model.h"
#include "ckpt/hf/names.h"
#include "comm/end.h"
#include "comm/launch.h"
#include "config/arguments.h"

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;
    struct hy3_init_options o = {
        .names = HY3_INNER, .dtype = HY3_BF16, .max_shard_bytes = 5000000000, .seed = 42};
    bool finished;
    const struct hy3_option table[] = {
        {HY3_ARGUMENT("shape", HY3_TEXT, &o.shape, "FILE",
                      "config.json; missing keys: as published"),
         .required = true, .path = HY3_PATH_FILE},
        {HY3_ARGUMENT("tokenizer", HY3_TEXT, &o.tokenizer, "DIR",
                      "directory of tokenizer files to copy"),
         .required = true, .path = HY3_PATH_MODEL},
        {HY3_ARGUMENT("output_dir", HY3_TEXT, &o.output, "DIR", "new model directory"),
         .required = true, .path = HY3_PATH_OUTPUT},
        {HY3_ARGUMENT("seed", HY3_COUNT, &o.seed, "N", "random seed of the weights (default 42)")},
        {HY3_ARGUMENT("names", HY3_CHOICE, &o.names, "LAYOUT",
                      "inner (as published) or outer (default inner)"),
         .words = hy3_names_words},
        {HY3_ARGUMENT("dtype", HY3_CHOICE, &o.dtype, "TYPE", "bf16, fp16 or fp32 (default bf16)"),
         .words = hy3_dtype_names},
        {HY3_ARGUMENT("max_shard_size", HY3_SIZE, &o.max_shard_bytes, "SIZE",
                      "maximum size of a shard (default 5GB)")},
        {HY3_ARGUMENT("overwrite", HY3_BOOL, &o.overwrite, NULL,
                      "replace the model in output_dir")},
        {.key = NULL},
    };
    const struct hy3_usage usage = {"hy3_init", "Writes a model directory with random weights.",
                                    table, NULL, false};

    HY3_TRY_DONE(hy3_start(&argc, &argv, usage.program));
    HY3_TRY_DONE(hy3_arguments_parse(MPI_COMM_WORLD, &usage, argc, argv, &finished));
    if (finished) /* --help, --version */
        goto done;
    HY3_TRY_DONE(hy3_random_model_write(MPI_COMM_WORLD, &o));
done:
    return hy3_finish(status);
}
