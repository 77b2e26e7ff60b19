/* SPDX-License-Identifier: Apache-2.0 */
/* nccl.cpp - replaces NCCL: a group of calls is one operation of its stream, done by non-blocking
 * MPI.
 *
 * Messages pass through host memory, so MPI accesses no device memory while the host runs. A query
 * for asynchronous errors lets the streams progress, as a device does by itself: a rank that waits
 * for another must query, or both wait forever. Communicators are non-blocking ones: a call is in
 * progress when it returns, and no other call may follow before a query has said that it is not. */
#include "cuda/emulation/emu.h"

#include <cuda_bf16.h>
#define MPICH_SKIP_MPICXX 1
#include <mpi.h>
#include <nccl.h>

#include <memory>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <vector>

struct ncclComm {
    MPI_Comm comm;
    int size, rank;
    std::function<bool()> setup; /* until it returns true, the communicator is being made */
    int busy;                    /* queries until the last call is no longer in progress */
};

#define API extern "C" ncclResult_t
#define MAY_FAIL                     \
    do {                             \
        if (hy3_emu_fails(__func__)) \
            return ncclSystemError;  \
    } while (0)

namespace
{

/* Communicators in the making: the root in the identifier gathers the world ranks of all and sends
 * them to all. */
struct meeting {
    int root, tag, size, me;
    int mine[2];                   /* rank in the group, in the world */
    std::vector<int> pairs, world; /* the root's; the world ranks */
    std::vector<MPI_Request> first, second;
};

bool are_done(std::vector<MPI_Request> &requests)
{
    int done;

    MPI_Testall((int)requests.size(), requests.data(), &done, MPI_STATUSES_IGNORE);
    return done;
}

/* Only once all have come: MPI's own call waits inside. */
void make(ncclComm_t c, const meeting &m)
{
    MPI_Group all, some;

    MPI_Comm_group(MPI_COMM_WORLD, &all);
    MPI_Group_incl(all, m.size, m.world.data(), &some);
    MPI_Comm_create_group(MPI_COMM_WORLD, some, m.tag, &c->comm);
    MPI_Group_free(&all);
    MPI_Group_free(&some);
}

bool meet(ncclComm_t c, meeting &m)
{
    if (!are_done(m.first))
        return false;
    if (m.me == m.root && m.second.empty()) {
        for (int i = 0; i < m.size; i++)
            m.world[(size_t)m.pairs[2 * (size_t)i]] = m.pairs[2 * (size_t)i + 1];
        for (int other : m.world) {
            m.second.emplace_back(MPI_REQUEST_NULL);
            if (other != m.me)
                MPI_Isend(m.world.data(), m.size, MPI_INT, other, m.tag + 1000, MPI_COMM_WORLD,
                          &m.second.back());
        }
    }
    if (!are_done(m.second))
        return false;
    make(c, m);
    return true;
}

typedef std::vector<char> bytes;

/* A call: what it posts, and what it does once its group is complete. */
struct call {
    std::function<void(std::vector<MPI_Request> &)> post;
    std::function<void()> end;
};

std::vector<call> pending;
cudaStream_t pending_stream;
ncclComm_t pending_comm;
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
    pending_comm->busy = 2;
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
    return ncclInProgress;
}

ncclResult_t add(ncclComm_t comm, cudaStream_t stream, call c)
{
    if (comm->busy || comm->setup) {
        fprintf(stderr, "hy3_emu: a communicator is used while a call on it is in progress\n");
        abort();
    }
    pending_comm = comm;
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

extern "C" const char *ncclGetLastError(ncclComm_t)
{
    return hy3_emu_has_failed() ? "the emulated network is down" : "";
}

API ncclGetVersion(int *version)
{
    *version = NCCL_VERSION_CODE;
    return ncclSuccess;
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

API ncclCommInitRankConfig(ncclComm_t *out, int size, ncclUniqueId id, int rank,
                           ncclConfig_t *config)
{
    auto m = std::make_shared<meeting>();
    int value[2];
    ncclComm_t c;

    MAY_FAIL;
    if (config->blocking != 0)
        return ncclInvalidArgument;
    memcpy(value, &id, sizeof value);
    MPI_Comm_rank(MPI_COMM_WORLD, &m->me);
    m->root = value[0];
    m->tag = 20000 + value[1] % 1000;
    m->size = size;
    m->mine[0] = rank;
    m->mine[1] = m->me;
    m->world.resize((size_t)size);
    m->first.resize(1);
    MPI_Isend(m->mine, 2, MPI_INT, m->root, m->tag, MPI_COMM_WORLD, &m->first[0]);
    if (m->me == m->root) {
        m->pairs.resize(2 * (size_t)size);
        m->first.resize(1 + (size_t)size);
        for (int i = 0; i < size; i++)
            MPI_Irecv(&m->pairs[2 * (size_t)i], 2, MPI_INT, MPI_ANY_SOURCE, m->tag, MPI_COMM_WORLD,
                      &m->first[1 + (size_t)i]);
    } else {
        m->second.resize(1);
        MPI_Irecv(m->world.data(), size, MPI_INT, m->root, m->tag + 1000, MPI_COMM_WORLD,
                  &m->second[0]);
    }
    c = new ncclComm{MPI_COMM_NULL, size, rank, {}, 0};
    c->setup = [c, m] { return meet(c, *m); };
    *out = c;
    return ncclInProgress;
}

API ncclCommFinalize(ncclComm_t c)
{
    MAY_FAIL;
    c->busy = 2;
    return ncclInProgress;
}

API ncclCommDestroy(ncclComm_t c)
{
    MAY_FAIL;
    if (c->comm != MPI_COMM_NULL)
        MPI_Comm_free(&c->comm);
    delete c;
    return ncclSuccess;
}

API ncclCommAbort(ncclComm_t)
{
    MAY_FAIL;
    return ncclSuccess;
}

API ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *error)
{
    *error = hy3_emu_fails(__func__) ? ncclSystemError : ncclSuccess;
    hy3_emu_progress();
    if (c->setup && c->setup())
        c->setup = nullptr;
    if (*error == ncclSuccess && (c->setup || c->busy > 0))
        *error = ncclInProgress;
    if (c->busy > 0)
        c->busy--;
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
    return add(c, stream,
               {[=](std::vector<MPI_Request> &requests) {
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
    return add(c, stream,
               {[=](std::vector<MPI_Request> &requests) {
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
    return add(c, stream,
               {[=](std::vector<MPI_Request> &requests) {
                    hy3_emu_touch_device();
                    memcpy(host->data(), from, count * 4);
                    requests.emplace_back();
                    MPI_Iallreduce(MPI_IN_PLACE, host->data(), (int)count, MPI_FLOAT, MPI_SUM,
                                   c->comm, &requests.back());
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
    return add(c, stream,
               {[=](std::vector<MPI_Request> &requests) {
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

/* bf16 numbers as bits: b += a, rounded to nearest. */
static void add_bf16(void *a, void *b, int *count, MPI_Datatype *)
{
    const __nv_bfloat16 *x = (const __nv_bfloat16 *)a;
    __nv_bfloat16 *y = (__nv_bfloat16 *)b;

    for (int i = 0; i < *count; i++)
        y[i] = __float2bfloat16_rn(__bfloat162float(x[i]) + __bfloat162float(y[i]));
}

/* `count` elements for each rank. */
API ncclReduceScatter(const void *from, void *to, size_t count, ncclDataType_t type, ncclRedOp_t op,
                      ncclComm_t c, cudaStream_t stream)
{
    static MPI_Op sum_bf16 = MPI_OP_NULL;
    bool narrow = type == ncclBfloat16;
    size_t part = count * size_of(type), total = part * (size_t)c->size;
    auto all = std::make_shared<std::vector<char>>(total),
         own = std::make_shared<std::vector<char>>(part);

    MAY_FAIL;
    if (op != ncclSum || (type != ncclFloat32 && !narrow))
        return ncclInvalidArgument;
    if (sum_bf16 == MPI_OP_NULL)
        MPI_Op_create(add_bf16, 1, &sum_bf16);
    hy3_emu_check_pointer("ncclReduceScatter", 0, from);
    hy3_emu_check_pointer("ncclReduceScatter", 1, to);
    return add(c, stream,
               {[=](std::vector<MPI_Request> &requests) {
                    hy3_emu_touch_device();
                    memcpy(all->data(), from, total);
                    requests.emplace_back();
                    MPI_Ireduce_scatter_block(
                        all->data(), own->data(), (int)count, narrow ? MPI_UINT16_T : MPI_FLOAT,
                        narrow ? sum_bf16 : MPI_SUM, c->comm, &requests.back());
                },
                [=] {
                    hy3_emu_touch_device();
                    memcpy(to, own->data(), part);
                }});
}
