/* SPDX-License-Identifier: Apache-2.0 */
/* run_plan.c - what auto has become, and the length in place of data. */
#include "train/run_plan.h"

hy3_status hy3_run_plan(const struct hy3_config *config, const struct hy3_loaded_model *model,
                        int64_t length, struct hy3_plan_options options, struct hy3_plan *plan)
{
    const struct hy3_layout *layout = &model->layout;
    struct hy3_config c = *config; /* shares its texts, is not freed */

    options.ranks = layout->world.size;
    options.ranks_per_node = layout->node.size;
    c.expert_parallel_size = layout->experts.size;
    c.zero_group_size = layout->zero.size;
    c.max_seq_length = length;
    c.packing = false; /* the length is of its rows */
    return hy3_plan_make(&c, &model->shape, &options, plan);
}
