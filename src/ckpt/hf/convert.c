/* SPDX-License-Identifier: Apache-2.0 */
/* convert.c - a plan of the same tensors under other names, rewritten. */
#include "ckpt/hf/convert.h"

#include "base/file.h"
#include "base/log.h"
#include "base/plural.h"
#include "base/size.h"
#include "ckpt/hf/fingerprint.h"
#include "ckpt/hf/names.h"
#include "ckpt/hf/rewrite.h"
#include "comm/agree.h"

static hy3_status plan_all(const struct hy3_hf_conversion *c, struct hy3_shape *shape,
                           struct hy3_hf_dir **base, struct hy3_hf_plan **plan)
{
    char path[HY3_PATH_MAX];

    HY3_TRY(hy3_hf_dir_expect_model(c->input));
    HY3_TRY(hy3_path_format(path, sizeof path, "%s/config.json", c->input));
    HY3_TRY(hy3_shape_open(path, shape));
    HY3_TRY(hy3_hf_dir_open(c->input, base));
    if (hy3_hf_dir_names(*base) == c->layout.names)
        HY3_FAIL(HY3_EUSAGE, "'%s' has %s names already; there is nothing to convert", c->input,
                 hy3_names_words[c->layout.names]);
    return hy3_hf_plan_rewrite(*base, shape->experts, &c->layout, plan);
}

/* Without an index the mark has its place in the header of the one file. */
static hy3_status mark(struct hy3_hf_plan *plan, uint64_t source)
{
    plan->program = "hy3_convert";
    snprintf(plan->source, sizeof plan->source, "%016llx", (unsigned long long)source);
    if (hy3_hf_plan_is_single(plan))
        plan->bare = false;
    return hy3_hf_plan_lay_out(plan);
}

hy3_status hy3_hf_convert(MPI_Comm comm, const struct hy3_hf_conversion *c)
{
    hy3_status status = HY3_OK;
    struct hy3_hf_dir *base = NULL;
    struct hy3_hf_plan *plan = NULL;
    const char *names = hy3_names_words[c->layout.names];
    struct hy3_shape shape = {0};
    char settings[128], size[HY3_SIZE_TEXT];
    uint64_t source;

    HY3_AGREE_DONE(comm, plan_all(c, &shape, &base, &plan), "reading the checkpoint");
    HY3_TRY_DONE(hy3_hf_fingerprint(comm, base, &shape, &source));
    HY3_AGREE_DONE(comm, mark(plan, source), "reading the checkpoint");
    snprintf(settings, sizeof settings, "convert to %s, max_shard_size %lld%s", names,
             (long long)c->layout.max_shard_bytes, c->layout.keep_residue ? ", keep-residue" : "");
    HY3_TRY_DONE(hy3_hf_rewrite(comm,
                                &(struct hy3_hf_rewrite){.base = base,
                                                         .output = c->output,
                                                         .settings = settings,
                                                         .verb = "converting",
                                                         .workers = c->workers},
                                plan));
    hy3_log(HY3_LOG_INFO, "%d tensor%s in %d shard%s, %s, written with %s names to '%s'",
            plan->count, hy3_s(plan->count), plan->file_count, hy3_s(plan->file_count),
            hy3_size_text((double)plan->total_bytes, size), names, c->output);
done:
    hy3_hf_plan_free(plan);
    hy3_hf_dir_close(base);
    return status;
}
