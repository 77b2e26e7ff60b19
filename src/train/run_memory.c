/* SPDX-License-Identifier: Apache-2.0 */
/* run_memory.c - planned and used memory of a run. */
#include "train/run_memory.h"

#include "app/offload.h"
#include "base/log.h"
#include "base/memory.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "train/run_plan.h"

/* Plans the run for the GPU that has least free memory. */
static hy3_status plan(const struct hy3_config *config, const struct hy3_loaded_model *model,
                       int64_t longest, double least, struct hy3_run_memory *memory)
{
    const double kept = 0.98; /* auto leaves the rest free: what is allocated comes in blocks */
    struct hy3_plan_options options = {.device_memory = kept * least,
                                       .nccl_is_open = model->backend->collectives.open};
    struct hy3_plan plan;

    HY3_TRY(hy3_run_plan(config, model, longest, options, &plan));
    memory->device_planned = (size_t)plan.device;
    memory->offload_ratio = plan.offload_ratio;
    if (plan.device > least)
        HY3_FAIL(HY3_ENOMEM,
                 "this run needs %.3f GB of each GPU, of which %.3f GB are free; more ranks, a "
                 "higher zero_stage, offload = auto or a smaller max_seq_length need less "
                 "(hy3_plan prints what fits)",
                 1e-9 * plan.device, 1e-9 * least);
    return HY3_OK;
}

hy3_status hy3_run_memory_check(const struct hy3_config *config,
                                const struct hy3_loaded_model *model, int64_t longest,
                                struct hy3_run_memory *memory)
{
    const struct hy3_device *device = &model->backend->device;
    MPI_Comm comm = model->layout.world.comm;
    char text[HY3_OFFLOAD_TEXT];
    int64_t least;

    if (!device->available)
        return HY3_OK;
    HY3_AGREE(comm, device->available(&memory->device_free), "planning device memory");
    least = (int64_t)memory->device_free;
    hy3_allreduce_int(comm, &least, 1, MPI_MIN, "planning device memory");
    HY3_AGREE(comm, plan(config, model, longest, (double)least, memory), "planning device memory");
    if (config->offload == HY3_OFFLOAD_auto)
        hy3_log(HY3_LOG_INFO, "%s", hy3_offload_text(config, memory->offload_ratio, text));
    return HY3_OK;
}

hy3_status hy3_run_memory_log(const struct hy3_loaded_model *model,
                              const struct hy3_run_memory *memory)
{
    const struct hy3_device *device = &model->backend->device;
    MPI_Comm comm = model->layout.world.comm;
    int64_t grown = (int64_t)hy3_memory_peak() - (int64_t)memory->resident, used = 0;
    size_t available = 0;

    if (device->available) {
        HY3_AGREE(comm, device->available(&available), "querying device memory");
        used = (int64_t)memory->device_free - (int64_t)available;
    }
    hy3_allreduce_int(comm, &grown, 1, MPI_MAX, "comparing memory");
    hy3_allreduce_int(comm, &used, 1, MPI_MAX, "comparing memory");
    hy3_log(HY3_LOG_INFO, "peak host memory growth per rank: %.1f MB", 1e-6 * (double)grown);
    if (device->available)
        hy3_log(HY3_LOG_INFO, "device memory per rank: %.3f GB used, %.3f GB planned",
                1e-9 * (double)used, 1e-9 * (double)memory->device_planned);
    return HY3_OK;
}
