/* SPDX-License-Identifier: Apache-2.0 */
/* hy3_convert - a checkpoint in the other layout: inner (as published) or outer (as transformers
 * names it). */
#include "ckpt/hf/convert.h"
#include "ckpt/hf/names.h"
#include "comm/end.h"
#include "comm/launch.h"
#include "config/arguments.h"

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;
    struct hy3_hf_conversion c = {0};
    int64_t workers;
    bool finished;
    const struct hy3_option table[] = {
        {HY3_ARGUMENT("to", HY3_CHOICE, &c.layout.names, "LAYOUT",
                      "inner (as published) or outer (transformers)"),
         .words = hy3_names_words, .required = true},
        {HY3_ARGUMENT("input_dir", HY3_TEXT, &c.input, "DIR",
                      "model directory to convert; only read"),
         .required = true, .path = HY3_PATH_MODEL},
        {HY3_ARGUMENT("output_dir", HY3_TEXT, &c.output, "DIR",
                      "new model directory; an unfinished conversion is resumed"),
         .required = true, .path = HY3_PATH_OUTPUT},
        {HY3_ARGUMENT("workers", HY3_COUNT, &workers, "N",
                      "threads per rank (default: its share of the CPUs)"),
         .count = {.low = 1, .high = 1024}},
        {HY3_ARGUMENT("max_shard_size", HY3_SIZE, &c.layout.max_shard_bytes, "SIZE",
                      "maximum size of a shard, e.g. 5GB (default: the shards of the input)")},
        {HY3_ARGUMENT("keep-residue", HY3_BOOL, &c.layout.keep_residue, NULL,
                      "keep shards that are left without tensors")},
        {.key = NULL},
    };
    const struct hy3_usage usage = {"hy3_convert",
                                    "Converts a model directory between inner and outer names.",
                                    table, NULL, false};

    HY3_TRY_DONE(hy3_start(&argc, &argv, usage.program));
    workers = hy3_threads();
    HY3_TRY_DONE(hy3_arguments_parse(MPI_COMM_WORLD, &usage, argc, argv, &finished));
    if (finished) /* --help, --version */
        goto done;
    c.workers = (int)workers;
    HY3_TRY_DONE(hy3_hf_convert(MPI_COMM_WORLD, &c));
done:
    return hy3_finish(status);
}
