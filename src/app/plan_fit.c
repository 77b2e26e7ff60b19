/* SPDX-License-Identifier: Apache-2.0 */
/* plan_fit.c - compares plans of other settings and numbers of ranks with the limits. */
#include "app/plan_fit.h"

#include "parallel/layout.h"

static bool is_cpu(const struct hy3_config *config)
{
    return config->device == HY3_DEVICE_cpu;
}

static bool set(int64_t *field, int64_t value)
{
    bool changed = *field != value;

    *field = value;
    return changed;
}

static bool set_bool(bool *field, bool value)
{
    bool changed = *field != value;

    *field = value;
    return changed;
}

/* Unless all is in host memory. */
static bool set_offload(struct hy3_config *c)
{
    bool is_whole = c->offload == HY3_OFFLOAD_full && c->offload_ratio >= 1;

    if (c->offload == HY3_OFFLOAD_auto || is_whole)
        return false;
    c->offload = HY3_OFFLOAD_auto;
    c->offload_ratio = 1;
    return true;
}

const char *hy3_plan_fit_change(struct hy3_config *c, int i, bool *changed)
{
    switch (i) {
    case 0:
        *changed = set_bool(&c->gradient_checkpointing, true);
        return "gradient_checkpointing = true";
    case 1:
        *changed = c->recompute != HY3_RECOMPUTE_full;
        c->recompute = HY3_RECOMPUTE_full;
        return "recompute = full";
    case 2:
        *changed = set(&c->zero_stage, 3);
        return "zero_stage = 3";
    case 3:
        *changed = set_bool(&c->make_moe_param_leaf_module, false);
        return "make_moe_param_leaf_module = false";
    case 4:
        *changed = set(&c->per_device_train_batch_size, 1);
        return "per_device_train_batch_size = 1";
    case 5:
        *changed = set(&c->stage3_max_reuse_distance, 0);
        return "stage3_max_reuse_distance = 0";
    case 6:
        *changed = set(&c->stage3_prefetch_bucket_size, 0);
        return "stage3_prefetch_bucket_size = 0";
    case 7:
        *changed = set_offload(c);
        return "offload = auto";
    case 8:
        *changed = !is_cpu(c) && set_bool(&c->offload_activations, true);
        return "offload_activations = true";
    case 9:
        *changed = set_bool(&c->save_async, false);
        return "save_async = false";
    default:
        return NULL;
    }
}

hy3_status hy3_plan_fit_ranks(const struct hy3_config *config, const struct hy3_shape *shape,
                              const struct hy3_plan_options *options, int *ranks,
                              struct hy3_plan *plan)
{
    struct hy3_plan_options o = *options;
    struct hy3_config c = *config; /* shares its texts, is not freed */

    c.gradient_accumulation_steps = 1;
    for (o.ranks = 1; o.ranks <= HY3_PLAN_FIT_RANKS; o.ranks *= 2) {
        if ((c.expert_parallel_size > 0 && o.ranks % c.expert_parallel_size != 0) ||
            (c.zero_group_size > 0 && o.ranks % c.zero_group_size != 0) ||
            !hy3_sequence_group_divides((int)c.sequence_parallel_size, o.ranks, o.ranks_per_node))
            continue;
        HY3_TRY(hy3_plan_make(&c, shape, &o, plan));
        *ranks = o.ranks;
        if (hy3_plan_fit(&c, &o, plan))
            return HY3_OK;
    }
    *ranks = 0;
    return HY3_OK;
}
