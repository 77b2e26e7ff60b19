/* SPDX-License-Identifier: Apache-2.0 */
/* nccl.cpp - replaces NCCL: a group of calls is one operation of its stream, done by non-blocking
 * MPI.
 *
 * Messages pass through host memory, so MPI accesses no device memory while the host runs. A query
 * for asynchronous errors lets the streams progress, as a device does by itself: a rank that waits
 * for another must query, or both wait forever. */
#include "cuda/emulation/emu.h"

#include <cuda_bf16.h>
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>
#include <nccl.h>

#include <memory>
#include <string.h>
#include <vector>

struct ncclComm {
    MPI_Comm comm;
    int size, rank;
};

#define API extern "C" ncclResult_t
#define MAY_FAIL                     \
    do {                             \
        if (hy3_emu_fails(__func__)) \
            return ncclSystemError;  \
    } while (0)

namespace
{

typedef std::vector<char> bytes;

/* A call: what it posts, and what it does once its group is complete. */
struct call {
    std::function<void(std::vector<MPI_Request> &)> post;
    std::function<void()> end;
};

std::vector<call> pending;
cudaStream_t pending_stream;
int depth;

struct group {
    std::vector<call> calls;
    std::vector<MPI_Request> requests;
    bool is_posted = false;
};

ncclResult_t flush()
{
    auto g = std::make_shared<group>();

    if (pending.empty())
        return ncclSuccess;
    g->calls.swap(pending);
    hy3_emu_enqueue_waiting(pending_stream, [g] {
        int done;

        if (!g->is_posted)
            for (call &c : g->calls)
                c.post(g->requests);
        g->is_posted = true;
        MPI_Testall((int)g->requests.size(), g->requests.data(), &done, MPI_STATUSES_IGNORE);
        if (!done)
            return false;
        for (call &c : g->calls)
            c.end();
        return true;
    });
    return ncclSuccess;
}

ncclResult_t add(cudaStream_t stream, call c)
{
    pending_stream = stream;
    pending.push_back(std::move(c));
    return depth ? ncclSuccess : flush();
}

size_t size_of(ncclDataType_t type)
{
    return type == ncclUint8 || type == ncclInt8 ? 1 : type == ncclBfloat16 ? 2 : 4;
}

} // namespace

extern "C" const char *ncclGetErrorString(ncclResult_t error)
{
    return error == ncclSuccess           ? "no error"
           : error == ncclInvalidUsage    ? "invalid usage"
           : error == ncclInvalidArgument ? "invalid argument"
                                          : "unhandled system error";
}

API ncclGetUniqueId(ncclUniqueId *id)
{
    static int number;
    int value[2] = {0, ++number};

    MAY_FAIL;
    MPI_Comm_rank(MPI_COMM_WORLD, &value[0]);
    memset(id, 0, sizeof *id);
    memcpy(id, value, sizeof value);
    return ncclSuccess;
}

/* The root in `id` gathers the world ranks of all and sends them to all. */
API ncclCommInitRank(ncclComm_t *out, int size, ncclUniqueId id, int rank)
{
    int root[2], me, pair[2], tag;
    std::vector<int> world((size_t)size);
    MPI_Request request;
    MPI_Group all, some;

    MAY_FAIL;
    memcpy(root, &id, sizeof root);
    MPI_Comm_rank(MPI_COMM_WORLD, &me);
    tag = 20000 + root[1] % 1000;
    pair[0] = rank;
    pair[1] = me;
    MPI_Isend(pair, 2, MPI_INT, root[0], tag, MPI_COMM_WORLD, &request);
    if (me == root[0]) {
        for (int i = 0; i < size; i++) {
            int other[2];

            MPI_Recv(other, 2, MPI_INT, MPI_ANY_SOURCE, tag, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
            world[(size_t)other[0]] = other[1];
        }
        for (int other : world)
            if (other != me)
                MPI_Send(world.data(), size, MPI_INT, other, tag + 1000, MPI_COMM_WORLD);
    } else {
        MPI_Recv(world.data(), size, MPI_INT, root[0], tag + 1000, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
    }
    MPI_Wait(&request, MPI_STATUS_IGNORE);
    MPI_Comm_group(MPI_COMM_WORLD, &all);
    MPI_Group_incl(all, size, world.data(), &some);
    *out = new ncclComm{MPI_COMM_NULL, size, rank};
    MPI_Comm_create_group(MPI_COMM_WORLD, some, tag, &(*out)->comm);
    MPI_Group_free(&all);
    MPI_Group_free(&some);
    return ncclSuccess;
}

API ncclCommDestroy(ncclComm_t c)
{
    MPI_Comm_free(&c->comm);
    delete c;
    return ncclSuccess;
}

API ncclCommAbort(ncclComm_t)
{
    return ncclSuccess;
}

API ncclCommGetAsyncError(ncclComm_t, ncclResult_t *error)
{
    *error = hy3_emu_fails(__func__) ? ncclSystemError : ncclSuccess;
    hy3_emu_progress();
    return ncclSuccess;
}

API ncclGroupStart()
{
    MAY_FAIL;
    depth++;
    return ncclSuccess;
}

API ncclGroupEnd()
{
    MAY_FAIL;
    return --depth ? ncclSuccess : flush();
}

API ncclSend(const void *data, size_t count, ncclDataType_t type, int peer, ncclComm_t c,
             cudaStream_t stream)
{
    size_t size = count * size_of(type);
    auto host = std::make_shared<bytes>(size);

    MAY_FAIL;
    hy3_emu_check_pointer("ncclSend", 0, data);
    return add(stream, {[=](std::vector<MPI_Request> &requests) {
                            hy3_emu_touch_device();
                            memcpy(host->data(), data, size);
                            requests.emplace_back();
                            MPI_Isend(host->data(), (int)size, MPI_BYTE, peer, 1, c->comm,
                                      &requests.back());
                        },
                        [host] {}});
}

API ncclRecv(void *data, size_t count, ncclDataType_t type, int peer, ncclComm_t c,
             cudaStream_t stream)
{
    size_t size = count * size_of(type);
    auto host = std::make_shared<bytes>(size);

    MAY_FAIL;
    hy3_emu_check_pointer("ncclRecv", 0, data);
    return add(stream, {[=](std::vector<MPI_Request> &requests) {
                            requests.emplace_back();
                            MPI_Irecv(host->data(), (int)size, MPI_BYTE, peer, 1, c->comm,
                                      &requests.back());
                        },
                        [=] {
                            hy3_emu_touch_device();
                            memcpy(data, host->data(), size);
                        }});
}

API ncclAllReduce(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op,
                  ncclComm_t c, cudaStream_t stream)
{
    auto host = std::make_shared<std::vector<float>>(count);

    MAY_FAIL;
    if (op != ncclSum || type != ncclFloat32)
        return ncclInvalidArgument;
    hy3_emu_check_pointer("ncclAllReduce", 0, from);
    hy3_emu_check_pointer("ncclAllReduce", 1, to);
    return add(stream, {[=](std::vector<MPI_Request> &requests) {
                            hy3_emu_touch_device();
                            memcpy(host->data(), from, count * 4);
                            requests.emplace_back();
                            MPI_Iallreduce(MPI_IN_PLACE, host->data(), (int)count, MPI_FLOAT,
                                           MPI_SUM, c->comm, &requests.back());
                        },
                        [=] {
                            hy3_emu_touch_device();
                            memcpy(to, host->data(), count * 4);
                        }});
}

/* `count` elements of each rank. */
API ncclAllGather(const void *from, void *to, size_t count, ncclDataType_t type, ncclComm_t c,
                  cudaStream_t stream)
{
    size_t size = count * size_of(type), total = size * (size_t)c->size;
    auto own = std::make_shared<bytes>(size), all = std::make_shared<bytes>(total);

    MAY_FAIL;
    hy3_emu_check_pointer("ncclAllGather", 0, from);
    hy3_emu_check_pointer("ncclAllGather", 1, to);
    return add(stream, {[=](std::vector<MPI_Request> &requests) {
                            hy3_emu_touch_device();
                            memcpy(own->data(), from, size);
                            requests.emplace_back();
                            MPI_Iallgather(own->data(), (int)size, MPI_BYTE, all->data(), (int)size,
                                           MPI_BYTE, c->comm, &requests.back());
                        },
                        [=] {
                            hy3_emu_touch_device();
                            memcpy(to, all->data(), total);
                        }});
}

/* `count` elements for each rank. */
API ncclReduceScatter(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op,
                      ncclComm_t c, cudaStream_t stream)
{
    size_t total = count * (size_t)c->size;
    auto all = std::make_shared<std::vector<float>>(total),
         own = std::make_shared<std::vector<float>>(count);

    MAY_FAIL;
    if (op != ncclSum || type != ncclFloat32)
        return ncclInvalidArgument;
    hy3_emu_check_pointer("ncclReduceScatter", 0, from);
    hy3_emu_check_pointer("ncclReduceScatter", 1, to);
    return add(stream, {[=](std::vector<MPI_Request> &requests) {
                            hy3_emu_touch_device();
                            memcpy(all->data(), from, total * 4);
                            requests.emplace_back();
                            MPI_Ireduce_scatter_block(all->data(), own->data(), (int)count,
                                                      MPI_FLOAT, MPI_SUM, c->comm,
                                                      &requests.back());
                        },
                        [=] {
                            hy3_emu_touch_device();
                            memcpy(to, own->data(), count * 4);
                        }});
}
