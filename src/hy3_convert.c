/* SPDX-License-Identifier: Apache-2.0 */
/* hy3_convert - a checkpoint in the other layout: inner (as published) or outer (as transformers
 * names it). */
#include "ckpt/hf/convert.h"
#include "comm/end.h"
#include "comm/group.h"
#include "comm/launch.h"
#include "config/arguments.h"
#include "config/config.h"

struct words { /* as they arrive */
    const char *to, *max_shard_size;
    int64_t workers;
};

static hy3_status check_arguments(const struct words *words, struct hy3_hf_conversion *c)
{
    if (!words->to || !c->input || !c->output)
        HY3_FAIL(HY3_EUSAGE, "--to, --input_dir and --output_dir are needed; see --help");
    if (strcmp(words->to, "inner") != 0 && strcmp(words->to, "outer") != 0)
        HY3_FAIL(HY3_EUSAGE, "--to is '%s', it must be inner or outer", words->to);
    if (words->workers < 1 || words->workers > 1024)
        HY3_FAIL(HY3_EUSAGE, "--workers must be 1 to 1024");
    c->layout.names = strcmp(words->to, "inner") == 0 ? HY3_INNER : HY3_OUTER;
    c->workers = (int)words->workers;
    if (!words->max_shard_size)
        return HY3_OK;
    return hy3_config_bytes(words->max_shard_size, "max_shard_size", &c->layout.max_shard_bytes);
}

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;
    struct hy3_hf_conversion c = {0};
    struct words words = {0};
    bool finished;
    const struct hy3_argument table[] = {
        {"to", HY3_ARG_TEXT, &words.to, "LAYOUT", "inner (as published) or outer (transformers)"},
        {"input_dir", HY3_ARG_TEXT, &c.input, "DIR", "the checkpoint; it is only read"},
        {"output_dir", HY3_ARG_TEXT, &c.output, "DIR",
         "the new one; an unfinished one is continued"},
        {"workers", HY3_ARG_COUNT, &words.workers, "N",
         "threads of each rank (its share of the CPUs)"},
        {"max_shard_size", HY3_ARG_TEXT, &words.max_shard_size, "SIZE",
         "cut into shards of this size, e.g. 5GB (the shards of the input)"},
        {"keep-residue", HY3_ARG_FLAG, &c.layout.keep_residue, NULL,
         "keep shards that have no tensor left, empty"},
    };
    const struct hy3_usage usage = {"hy3_convert",
                                    "Converts a checkpoint from inner to outer names or back.",
                                    table, sizeof table / sizeof *table};

    HY3_TRY_DONE(hy3_start(&argc, &argv, usage.program));
    words.workers = hy3_threads();
    HY3_TRY_DONE(hy3_arguments_parse(&usage, argc, argv, hy3_rank(MPI_COMM_WORLD) == 0, &finished));
    if (finished) /* --help, --version */
        goto done;
    HY3_TRY_DONE(check_arguments(&words, &c));
    HY3_TRY_DONE(hy3_hf_convert(MPI_COMM_WORLD, &c));
done:
    return hy3_finish(status);
}
