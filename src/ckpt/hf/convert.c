/* SPDX-License-Identifier: Apache-2.0 */
/* convert.c - a plan of the same tensors under other names, rewritten. */
#include "ckpt/hf/convert.h"

#include "base/file.h"
#include "base/log.h"
#include "ckpt/hf/names.h"
#include "ckpt/hf/rewrite.h"
#include "comm/agree.h"

static hy3_status plan_all(const struct hy3_hf_conversion *c, struct hy3_hf_dir **base,
                           struct hy3_hf_plan **plan)
{
    struct hy3_shape shape;
    char path[HY3_PATH_MAX];

    if (!hy3_path_is_directory(c->input))
        HY3_FAIL(HY3_EIO, "the directory '%s' does not exist (--input_dir)", c->input);
    HY3_TRY(hy3_path_format(path, sizeof path, "%s/config.json", c->input));
    HY3_TRY(hy3_shape_open(path, &shape));
    HY3_TRY(hy3_hf_dir_open(c->input, base));
    if (hy3_hf_dir_names(*base) == c->layout.names)
        HY3_FAIL(HY3_EUSAGE, "'%s' has %s names already; there is nothing to convert", c->input,
                 hy3_names_words[c->layout.names]);
    HY3_TRY(hy3_hf_plan_rewrite(*base, shape.experts, &c->layout, plan));
    return hy3_hf_plan_lay_out(*plan);
}

hy3_status hy3_hf_convert(MPI_Comm comm, const struct hy3_hf_conversion *c)
{
    hy3_status status = HY3_OK;
    struct hy3_hf_dir *base = NULL;
    struct hy3_hf_plan *plan = NULL;
    const char *names = hy3_names_words[c->layout.names];
    char settings[128];

    HY3_AGREE_DONE(comm, plan_all(c, &base, &plan), "reading the checkpoint");
    snprintf(settings, sizeof settings, "convert to %s, max_shard_size %lld%s", names,
             (long long)c->layout.max_shard_bytes, c->layout.keep_residue ? ", keep-residue" : "");
    HY3_TRY_DONE(hy3_hf_rewrite(comm,
                                &(struct hy3_hf_rewrite){.base = base,
                                                         .output = c->output,
                                                         .settings = settings,
                                                         .verb = "converting",
                                                         .workers = c->workers},
                                plan));
    hy3_log(HY3_LOG_INFO, "%d tensors in %d shards, %.3f GB, now with %s names in '%s'",
            plan->count, plan->file_count, 1e-9 * (double)plan->total_bytes, names, c->output);
done:
    hy3_hf_plan_free(plan);
    hy3_hf_dir_close(base);
    return status;
}
