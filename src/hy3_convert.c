/* SPDX-License-Identifier: Apache-2.0 */
/* hy3_convert - a checkpoint in the other layout: inner (as published) or outer (as transformers
 * names it). */
#include "base/file.h"
#include "base/log.h"
#include "ckpt/hf/rewrite.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "config/arguments.h"
#include "config/config.h"

struct convert {
    const char *to, *input, *output, *max_shard_size;
    int64_t workers;
    bool keep_residue;
    struct hy3_hf_rewrite_layout layout;
    struct hy3_hf_dir *base;
    struct hy3_hf_plan *plan;
};

static hy3_status check_arguments(struct convert *c)
{
    if (!c->to || !c->input || !c->output)
        HY3_FAIL(HY3_EUSAGE, "--to, --input_dir and --output_dir are needed; see --help");
    if (strcmp(c->to, "inner") != 0 && strcmp(c->to, "outer") != 0)
        HY3_FAIL(HY3_EUSAGE, "--to is '%s', it must be inner or outer", c->to);
    if (c->workers < 1 || c->workers > 1024)
        HY3_FAIL(HY3_EUSAGE, "--workers must be 1 to 1024");
    c->layout.names = strcmp(c->to, "inner") == 0 ? HY3_INNER : HY3_OUTER;
    c->layout.keep_residue = c->keep_residue;
    if (c->max_shard_size)
        HY3_TRY(hy3_config_bytes(c->max_shard_size, "max_shard_size", &c->layout.max_shard_bytes));
    return HY3_OK;
}

static hy3_status plan(struct convert *c)
{
    struct hy3_shape shape;
    char path[HY3_PATH_MAX];

    if (!hy3_path_is_directory(c->input))
        HY3_FAIL(HY3_EIO, "the directory '%s' does not exist (--input_dir)", c->input);
    HY3_TRY(hy3_path_format(path, sizeof path, "%s/config.json", c->input));
    HY3_TRY(hy3_shape_open(path, &shape));
    HY3_TRY(hy3_hf_dir_open(c->input, &c->base));
    if (hy3_hf_dir_names(c->base) == c->layout.names)
        HY3_FAIL(HY3_EUSAGE, "'%s' has %s names already; there is nothing to convert", c->input,
                 c->to);
    HY3_TRY(hy3_hf_plan_rewrite(c->base, shape.experts, &c->layout, &c->plan));
    return hy3_hf_plan_lay_out(c->plan);
}

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;
    struct convert c = {0};
    char settings[128];
    bool finished;
    const struct hy3_argument table[] = {
        {"to", HY3_ARG_TEXT, &c.to, "LAYOUT", "inner (as published) or outer (transformers)"},
        {"input_dir", HY3_ARG_TEXT, &c.input, "DIR", "the checkpoint; it is only read"},
        {"output_dir", HY3_ARG_TEXT, &c.output, "DIR",
         "the new one; an unfinished one is continued"},
        {"workers", HY3_ARG_COUNT, &c.workers, "N", "threads of each rank (its share of the CPUs)"},
        {"max_shard_size", HY3_ARG_TEXT, &c.max_shard_size, "SIZE",
         "cut into shards of this size, e.g. 5GB (the shards of the input)"},
        {"keep-residue", HY3_ARG_FLAG, &c.keep_residue, NULL,
         "keep shards that have no tensor left, empty"},
    };
    const struct hy3_usage usage = {"hy3_convert",
                                    "Converts a checkpoint from inner to outer names or back.",
                                    table, sizeof table / sizeof *table};

    HY3_TRY_DONE(hy3_start(&argc, &argv, usage.program));
    c.workers = hy3_threads();
    HY3_TRY_DONE(hy3_arguments_parse(&usage, argc, argv, hy3_rank(MPI_COMM_WORLD) == 0, &finished));
    if (finished) /* --help, --version */
        goto done;
    HY3_TRY_DONE(check_arguments(&c));
    HY3_AGREE_DONE(MPI_COMM_WORLD, plan(&c), "reading the checkpoint");
    snprintf(settings, sizeof settings, "convert to %s, max_shard_size %lld%s", c.to,
             (long long)c.layout.max_shard_bytes, c.keep_residue ? ", keep-residue" : "");
    HY3_TRY_DONE(hy3_hf_rewrite(MPI_COMM_WORLD,
                                &(struct hy3_hf_rewrite){.base = c.base,
                                                         .output = c.output,
                                                         .settings = settings,
                                                         .verb = "converting",
                                                         .workers = (int)c.workers},
                                c.plan));
    hy3_log(HY3_LOG_INFO, "%d tensors in %d shards, %.3f GB, now with %s names in '%s'",
            c.plan->count, c.plan->file_count, 1e-9 * (double)c.plan->total_bytes, c.to, c.output);
done:
    hy3_hf_plan_free(c.plan);
    hy3_hf_dir_close(c.base);
    return hy3_finish(status);
}
