/* SPDX-License-Identifier: Apache-2.0 */
/* identity.c - gathers the identities of a node's devices and compares each with each. */
#include "backend/identity.h"

#include "base/log.h"
#include "base/memory.h"
#include "comm/agree.h"
#include "comm/wait.h"

#include <stdio.h>

struct seat {
    int rank;
    struct hy3_device_identity device;
};

/* "GPU-01020304-0506-…", as nvidia-smi -L shows it. */
static const char *uuid_text(const unsigned char *uuid, char out[48])
{
    int used = snprintf(out, 48, "GPU");

    for (int i = 0; i < 16; i++)
        used += snprintf(out + used, 48 - (size_t)used, "%s%02x",
                         i == 0 || i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", uuid[i]);
    return out;
}

static hy3_status compare(const struct seat *a, const struct seat *b, int ranks)
{
    bool is_same = memcmp(a->device.uuid, b->device.uuid, sizeof a->device.uuid) == 0;
    char host[MPI_MAX_PROCESSOR_NAME] = "?", uuid[48];
    int length;

    if (!is_same && memcmp(a->device.bus, b->device.bus, sizeof a->device.bus) != 0)
        return HY3_OK;
    MPI_Get_processor_name(host, &length);
    HY3_FAIL(HY3_EDEVICE,
             "ranks %d and %d on %s have %s (%s, %s); each of the %d ranks there needs a GPU of "
             "its own: start fewer a node (--ntasks-per-node), ask for more (--gpus-per-node), or "
             "compute with device = \"cpu\"",
             a->rank, b->rank, host,
             is_same ? "the same GPU" : "slices (MIG) of one GPU, which NCCL cannot connect",
             a->device.name, uuid_text(a->device.uuid, uuid), ranks);
}

static hy3_status compare_all(const struct seat *seats, int ranks)
{
    for (int i = 0; i < ranks; i++)
        for (int j = i + 1; j < ranks; j++)
            HY3_TRY(compare(&seats[i], &seats[j], ranks));
    return HY3_OK;
}

static void warn(MPI_Comm comm, const struct hy3_device_identity *device)
{
    int64_t ranks[2] = {device->is_slice, device->is_shared};

    hy3_allreduce_int(comm, ranks, 2, MPI_SUM, "comparing GPUs");
    if (ranks[0] > 0)
        hy3_log(HY3_LOG_WARN, "%lld of the ranks compute on a slice (MIG) of a GPU",
                (long long)ranks[0]);
    if (ranks[1] > 0)
        hy3_log(HY3_LOG_WARN,
                "%lld of the ranks have their GPU by MPS: other processes may use its memory and "
                "time, and an error of theirs ends this run",
                (long long)ranks[1]);
}

hy3_status hy3_identity_compare(MPI_Comm comm, MPI_Comm node, const struct hy3_device *device)
{
    hy3_status status = HY3_OK;
    struct seat mine = {.rank = hy3_rank(comm)}, *seats = NULL;
    MPI_Request request;

    status = device->identify(&mine.device);
    if (status == HY3_OK)
        status = hy3_alloc(&seats, (size_t)hy3_size(node), sizeof *seats);
    HY3_AGREE_DONE(comm, status, "looking for GPUs");
    MPI_Iallgather(&mine, sizeof mine, MPI_BYTE, seats, sizeof mine, MPI_BYTE, node, &request);
    hy3_wait(&request, "comparing GPUs");
    HY3_AGREE_DONE(comm, compare_all(seats, hy3_size(node)), "comparing GPUs");
    warn(comm, &mine.device);
done:
    hy3_free(seats);
    return status;
}
