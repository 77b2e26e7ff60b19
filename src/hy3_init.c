/* SPDX-License-Identifier: Apache-2.0 */
/* hy3_init - a small random checkpoint, for the quick start, tests and benchmarks. */
#include "app/random_model.h"
#include "comm/end.h"
#include "comm/group.h"
#include "comm/launch.h"
#include "config/arguments.h"
#include "config/config.h"

struct words { /* choices as they arrive */
    const char *names, *dtype, *max_shard_size;
};

static hy3_status read_words(const struct words *words, struct hy3_init_options *o)
{
    static const hy3_dtype dtypes[] = {HY3_BF16, HY3_FP16, HY3_FP32};
    int type = 0;

    if (!o->shape || !o->tokenizer || !o->output)
        HY3_FAIL(HY3_EUSAGE, "--shape, --tokenizer and --output_dir are needed; see --help");
    if (strcmp(words->names, "inner") != 0 && strcmp(words->names, "outer") != 0)
        HY3_FAIL(HY3_EUSAGE, "--names is '%s', it must be inner or outer", words->names);
    o->names = strcmp(words->names, "inner") == 0 ? HY3_INNER : HY3_OUTER;
    while (type < 3 && strcmp(words->dtype, hy3_dtype_name(dtypes[type])) != 0)
        type++;
    if (type == 3)
        HY3_FAIL(HY3_EUSAGE, "--dtype is '%s', it must be bf16, fp16 or fp32", words->dtype);
    o->dtype = dtypes[type];
    return hy3_config_bytes(words->max_shard_size, "max_shard_size", &o->max_shard_bytes);
}

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;
    struct hy3_init_options o = {0};
    struct words words = {"inner", "bf16", "5GB"};
    int64_t seed = 42;
    bool finished;
    const struct hy3_argument table[] = {
        {"shape", HY3_ARG_TEXT, &o.shape, "FILE", "keys of config.json; missing: as published"},
        {"tokenizer", HY3_ARG_TEXT, &o.tokenizer, "DIR", "its tokenizer files are copied"},
        {"output_dir", HY3_ARG_TEXT, &o.output, "DIR", "where the model is written"},
        {"seed", HY3_ARG_COUNT, &seed, "N", "of the random weights (42)"},
        {"names", HY3_ARG_TEXT, &words.names, "LAYOUT", "inner (published) or outer (inner)"},
        {"dtype", HY3_ARG_TEXT, &words.dtype, "TYPE", "bf16, fp16 or fp32 (bf16)"},
        {"max_shard_size", HY3_ARG_TEXT, &words.max_shard_size, "SIZE", "of one file (5GB)"},
        {"overwrite", HY3_ARG_FLAG, &o.overwrite, NULL, "replace the model in output_dir"},
    };
    const struct hy3_usage usage = {"hy3_init", "Makes a checkpoint of random weights.", table,
                                    sizeof table / sizeof *table};

    HY3_TRY_DONE(hy3_start(&argc, &argv, usage.program));
    HY3_TRY_DONE(hy3_arguments_parse(&usage, argc, argv, hy3_rank(MPI_COMM_WORLD) == 0, &finished));
    if (finished) /* --help, --version */
        goto done;
    HY3_TRY_DONE(read_words(&words, &o));
    o.seed = (uint64_t)seed;
    HY3_TRY_DONE(hy3_random_model_write(MPI_COMM_WORLD, &o));
done:
    return hy3_finish(status);
}
