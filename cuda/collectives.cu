/* SPDX-License-Identifier: Apache-2.0 */
/* collectives.cu - sums and exchanges over ranks by NCCL, on two communication streams, ordered by
 * events.
 *
 * Gathers and sums of weights and gradients share one stream, exchanges of rows, for which the
 * computation waits at once, have the other, of a higher priority: they do not queue behind the
 * next layer's weights. On a stream operations run in the order of issue, which is the same on
 * every rank, so its communicators cannot deadlock. Between the streams neither waits for the
 * other, and no communicator is used on both: each makes progress as soon as its kernels are
 * resident, and those of NCCL take a small part of a device (at most 32 of its multiprocessors
 * each). An MPI communicator gets its NCCL communicator at first use, as an attribute. */
#define MPICH_SKIP_MPICXX 1
#define OMPI_SKIP_MPICXX  1
#include "cuda/module.h"

#include <mpi.h>
#include <nccl.h>

enum { MOST_COMMUNICATORS = 64, MOST_EVENTS = 64 };

static struct {
    int key; /* of the attribute */
    bool has_key;
    ncclComm_t communicators[MOST_COMMUNICATORS];
    int count;
    cudaStream_t weights, rows; /* streams: of gathers and sums, of exchanges */
    struct hy3_event *free_events[MOST_EVENTS];
    int free_count;
} nccl;

static hy3_status failed(const char *call, ncclResult_t error, const char *file, int line)
{
    return hy3_cuda_failed(call, ncclGetErrorString(error), false, file, line);
}

#define NCCL_TRY(call)                                        \
    do {                                                      \
        ncclResult_t error_ = (call);                         \
        if (error_ != ncclSuccess)                            \
            return failed(#call, error_, __FILE__, __LINE__); \
    } while (0)

/* Called by MPI when a communicator is freed. */
static int forget(MPI_Comm, int, void *value, void *)
{
    ncclComm_t communicator = (ncclComm_t)value;

    for (int i = 0; i < nccl.count; i++)
        if (nccl.communicators[i] == communicator)
            nccl.communicators[i] = nccl.communicators[--nccl.count];
    (void)ncclCommDestroy(communicator);
    return MPI_SUCCESS;
}

static bool is_done(void *request)
{
    int done;

    return MPI_Test((MPI_Request *)request, &done, MPI_STATUS_IGNORE) != MPI_SUCCESS || done;
}

/* Collective on `group`. */
static hy3_status create(const struct hy3_group *group, ncclComm_t *out)
{
    struct {
        ncclResult_t error;
        ncclUniqueId id;
    } word = {};

    MPI_Request request;

    if (!nccl.has_key) {
        MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, forget, &nccl.key, NULL);
        nccl.has_key = true;
    }
    if (nccl.count == MOST_COMMUNICATORS)
        return failed("ncclCommInitRank", ncclInvalidUsage, __FILE__, __LINE__);
    if (group->rank == 0)
        word.error = ncclGetUniqueId(&word.id);
    MPI_Ibcast(&word, (int)sizeof word, MPI_BYTE, 0, group->comm, &request);
    hy3_cuda_host.wait_for(is_done, &request, "preparing NCCL");
    if (word.error != ncclSuccess)
        return failed("ncclGetUniqueId", word.error, __FILE__, __LINE__);
    NCCL_TRY(ncclCommInitRank(out, group->size, word.id, group->rank));
    nccl.communicators[nccl.count++] = *out;
    MPI_Comm_set_attr(group->comm, nccl.key, *out);
    return HY3_OK;
}

static hy3_status communicator_of(const struct hy3_group *group, ncclComm_t *out)
{
    int found = 0;

    if (nccl.has_key)
        MPI_Comm_get_attr(group->comm, nccl.key, out, &found);
    if (!found)
        HY3_TRY(create(group, out));
    if (!nccl.weights) {
        int least, greatest;

        HY3_CUDA_TRY(cudaDeviceGetStreamPriorityRange(&least, &greatest));
        HY3_CUDA_TRY(cudaStreamCreateWithPriority(&nccl.weights, cudaStreamNonBlocking, least));
        HY3_CUDA_TRY(cudaStreamCreateWithPriority(&nccl.rows, cudaStreamNonBlocking, greatest));
    }
    return HY3_OK;
}

static hy3_status take_event(struct hy3_event **out)
{
    if (nccl.free_count == 0)
        return hy3_cuda_device.event_create(out);
    *out = nccl.free_events[--nccl.free_count];
    return HY3_OK;
}

static void give_event(struct hy3_event *event)
{
    if (nccl.free_count < MOST_EVENTS)
        nccl.free_events[nccl.free_count++] = event;
    else
        hy3_cuda_device.event_free(event);
}

/* The communication stream *queue waits for what `stream` holds now. */
static hy3_status begin(struct hy3_stream *stream, const cudaStream_t *queue,
                        const struct hy3_group *group, ncclComm_t *communicator)
{
    struct hy3_stream on = {};
    struct hy3_event *event;

    HY3_TRY(communicator_of(group, communicator));
    on.stream = *queue;
    HY3_TRY(take_event(&event));
    HY3_TRY(hy3_cuda_device.event_record(event, stream));
    HY3_TRY(hy3_cuda_device.event_wait(event, &on));
    give_event(event);
    return HY3_OK;
}

/* An event after what a communication stream holds now. */
static hy3_status mark(cudaStream_t queue, struct hy3_event **out)
{
    struct hy3_stream on = {};

    on.stream = queue;
    HY3_TRY(take_event(out));
    return hy3_cuda_device.event_record(*out, &on);
}

static hy3_status finish(struct hy3_stream *stream, struct hy3_transfer *transfer,
                         const char *phase)
{
    struct hy3_event *event = transfer->event;

    if (!event)
        return HY3_OK;
    hy3_cuda_note_phase(phase);
    transfer->event = NULL;
    HY3_TRY(hy3_cuda_device.event_wait(event, stream));
    give_event(event);
    return HY3_OK;
}

static hy3_status all_reduce(struct hy3_stream *stream, const struct hy3_group *group, float *data,
                             int64_t count, const char *phase)
{
    struct hy3_transfer transfer = {};
    ncclComm_t communicator;

    if (group->size == 1 || count == 0)
        return HY3_OK;
    HY3_TRY(begin(stream, &nccl.weights, group, &communicator));
    NCCL_TRY(
        ncclAllReduce(data, data, (size_t)count, ncclFloat32, ncclSum, communicator, nccl.weights));
    HY3_TRY(mark(nccl.weights, &transfer.event));
    return finish(stream, &transfer, phase);
}

static hy3_status all_gather(struct hy3_stream *stream, const struct hy3_group *group, void *data,
                             int64_t count, hy3_dtype dtype, struct hy3_transfer *transfer)
{
    size_t bytes = (size_t)count * hy3_dtype_size(dtype);
    ncclComm_t communicator;

    transfer->event = NULL;
    if (group->size == 1 || count == 0)
        return HY3_OK;
    HY3_TRY(begin(stream, &nccl.weights, group, &communicator));
    NCCL_TRY(ncclAllGather((const char *)data + (size_t)group->rank * bytes, data, bytes, ncclUint8,
                           communicator, nccl.weights));
    return mark(nccl.weights, &transfer->event);
}

static hy3_status reduce_scatter(struct hy3_stream *stream, const struct hy3_group *group,
                                 const float *data, float *own, int64_t count,
                                 struct hy3_transfer *transfer)
{
    ncclComm_t communicator;

    transfer->event = NULL;
    if (group->size == 1)
        return hy3_cuda_device.copy(stream, own, data, (size_t)count * sizeof *data);
    HY3_TRY(begin(stream, &nccl.weights, group, &communicator));
    NCCL_TRY(ncclReduceScatter(data, own, (size_t)count, ncclFloat32, ncclSum, communicator,
                               nccl.weights));
    return mark(nccl.weights, &transfer->event);
}

static hy3_status all_to_all(struct hy3_stream *stream, const struct hy3_group *group,
                             const struct hy3_all_to_all *rows, const char *phase)
{
    struct hy3_transfer transfer = {};
    ncclComm_t communicator;
    size_t row = (size_t)rows->row_bytes;

    HY3_TRY(begin(stream, &nccl.rows, group, &communicator));
    NCCL_TRY(ncclGroupStart());
    for (int i = 0; i < group->size; i++) {
        if (rows->send_count[i] > 0)
            NCCL_TRY(ncclSend((const char *)rows->send + (size_t)rows->send_first[i] * row,
                              (size_t)rows->send_count[i] * row, ncclUint8, i, communicator,
                              nccl.rows));
        if (rows->receive_count[i] > 0)
            NCCL_TRY(ncclRecv((char *)rows->receive + (size_t)rows->receive_first[i] * row,
                              (size_t)rows->receive_count[i] * row, ncclUint8, i, communicator,
                              nccl.rows));
    }
    NCCL_TRY(ncclGroupEnd());
    HY3_TRY(mark(nccl.rows, &transfer.event));
    return finish(stream, &transfer, phase);
}

const struct hy3_collectives hy3_cuda_collectives = {
    .all_reduce = all_reduce,
    .all_gather = all_gather,
    .reduce_scatter = reduce_scatter,
    .finish = finish,
    .all_to_all = all_to_all,
};

const char *hy3_cuda_trouble(void)
{
    for (int i = 0; i < nccl.count; i++) {
        ncclResult_t error = ncclSuccess;

        if (ncclCommGetAsyncError(nccl.communicators[i], &error) == ncclSuccess &&
            error != ncclSuccess && error != ncclInProgress)
            return ncclGetErrorString(error);
    }
    return NULL;
}

void hy3_cuda_abort(void)
{
    for (int i = 0; i < nccl.count; i++)
        (void)ncclCommAbort(nccl.communicators[i]);
    nccl.count = 0;
}
