/* SPDX-License-Identifier: Apache-2.0 */
/* run_memory.c - planned and used memory of a run. */
#include "train/run_memory.h"

#include "base/log.h"
#include "base/memory.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "train/run_plan.h"

hy3_status hy3_run_memory_check(const struct hy3_config *config,
                                const struct hy3_loaded_model *model, int64_t longest,
                                struct hy3_run_memory *memory)
{
    const struct hy3_device *device = &model->backend->device;
    struct hy3_plan plan;

    if (!device->available)
        return HY3_OK;
    HY3_TRY(hy3_run_plan(config, model, longest, (struct hy3_plan_options){0}, &plan));
    HY3_TRY(device->available(&memory->device_free));
    plan.device -= plan.nccl; /* its communicators have been made */
    memory->device_planned = (size_t)plan.device;
    if (memory->device_planned > memory->device_free)
        HY3_FAIL(HY3_ENOMEM,
                 "this run needs %.3f GB of each GPU, of which %.3f GB are free; more ranks, a "
                 "higher zero_stage, offload or a smaller max_seq_length need less (hy3_plan "
                 "prints what fits)",
                 1e-9 * plan.device, 1e-9 * (double)memory->device_free);
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
