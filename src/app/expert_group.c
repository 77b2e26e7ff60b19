/* SPDX-License-Identifier: Apache-2.0 */
/* expert_group.c - plans the run on this machine's rates. */
#include "app/expert_group.h"

#include "app/plan.h"
#include "app/rates.h"
#include "base/log.h"
#include "comm/agree.h"
#include "comm/wait.h"

/* Rank 0. */
static hy3_status choose(const struct hy3_config *config, const struct hy3_loaded_model *model,
                         struct hy3_plan_options options, int64_t *size)
{
    struct hy3_rates rates;
    struct hy3_plan chosen, before;
    struct hy3_config c = *config; /* shares its texts, is not freed */
    char name[HY3_PATH_MAX];
    hy3_status status;

    HY3_TRY(hy3_rates_name(config->rates, &model->backend->device, name));
    if (name[0] == '\0')
        return HY3_OK;
    if ((status = hy3_rates_read(name, &rates)) != HY3_OK) /* without the key a run warns of it */
        return config->rates ? status : HY3_OK;
    options.rates = &rates;
    HY3_TRY(hy3_plan_make(config, &model->shape, &options, &chosen));
    if (chosen.group == *size)
        return HY3_OK;
    c.expert_parallel_size = *size;
    HY3_TRY(hy3_plan_make(&c, &model->shape, &options, &before));
    hy3_log(HY3_LOG_INFO,
            "expert_parallel_size: auto takes %d, with which a step takes %.3g s at the rates "
            "'%s'; %lld, within a node: %.3g s",
            chosen.group, hy3_plan_seconds(&chosen), name, (long long)*size,
            hy3_plan_seconds(&before));
    *size = chosen.group;
    return HY3_OK;
}

hy3_status hy3_expert_group_choose(MPI_Comm comm, const struct hy3_config *config,
                                   struct hy3_loaded_model *model)
{
    hy3_status status = HY3_OK;
    struct hy3_layout *layout = &model->layout;
    const struct hy3_device *device = &model->backend->device;
    struct hy3_plan_options options = {.ranks = layout->world.size,
                                       .ranks_per_node = hy3_layout_ranks_per_node(layout),
                                       .imbalance = HY3_PLAN_IMBALANCE};
    int64_t size = layout->experts.size, least;
    int zero = layout->zero.size, sequence = layout->sequence.size;
    size_t available = 0;

    if (config->expert_parallel_size > 0 || layout->world.size == 1)
        return HY3_OK;
    if (device->available)
        HY3_AGREE(comm, device->available(&available), "choosing expert groups");
    least = (int64_t)available;
    hy3_allreduce_int(comm, &least, 1, MPI_MIN, "choosing expert groups");
    options.device_memory = (double)least;
    if (layout->world.rank == 0)
        status = choose(config, model, options, &size);
    HY3_AGREE(comm, status, "choosing expert groups");
    hy3_broadcast(comm, 0, &size, sizeof size, "choosing expert groups");
    if (size == layout->experts.size)
        return HY3_OK;
    hy3_layout_close(layout);
    return hy3_layout_open(comm, (int)size, model->shape.experts, zero, sequence, layout);
}
