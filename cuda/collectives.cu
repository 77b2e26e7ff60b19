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
 * each). An MPI communicator gets its NCCL communicator, as an attribute, from `open`, before
 * anything is loaded, or at first use.
 *
 * Communicators are non-blocking: what NCCL has not finished when a call returns, its creation and
 * connections above all, is waited for by the program's own wait (ready), under ddp_timeout. */
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

/* What NCCL last wrote about an error: its only useful words; "": nothing. */
static const char *last_words(void)
{
    const char *words = ncclGetLastError(NULL);

    return words ? words : "";
}

/* The text of an error, valid until the next one. */
static const char *text_of(ncclResult_t error)
{
    static char text[1024];
    const char *words = last_words();

    snprintf(text, sizeof text, "%s%s%s", ncclGetErrorString(error), words[0] ? ": " : "", words);
    return text;
}

static hy3_status failed(const char *call, ncclResult_t error, const char *file, int line)
{
    return hy3_cuda_failed(call, text_of(error), false, file, line);
}

/* A communicator that is still at work on a call. */
struct progress {
    ncclComm_t communicator;
    ncclResult_t state;
};

static bool is_ready(void *context)
{
    struct progress *p = (struct progress *)context;
    ncclResult_t error = HY3_CUDA_WATCHED("ncclCommGetAsyncError",
                                          ncclCommGetAsyncError(p->communicator, &p->state));

    if (error != ncclSuccess)
        p->state = error;
    return p->state != ncclInProgress;
}

/* What `result` of a call on the communicator becomes once NCCL is done with it. */
static ncclResult_t ready(ncclComm_t communicator, ncclResult_t result, const char *call)
{
    struct progress p = {communicator, result};

    if (result == ncclInProgress)
        hy3_cuda_host.wait_on(is_ready, &p, call, "the GPU or another rank", false);
    return p.state;
}

/* HY3_TRY for calls of NCCL on a communicator. */
#define NCCL_TRY(communicator, name, call)                                               \
    do {                                                                                 \
        ncclResult_t error_ = ready((communicator), HY3_CUDA_WATCHED(name, call), name); \
        if (error_ != ncclSuccess)                                                       \
            return failed(name, error_, __FILE__, __LINE__);                             \
    } while (0)

/* The same inside a group, whose end begins the work. */
#define NCCL_QUEUE(name, call)                                 \
    do {                                                       \
        ncclResult_t error_ = HY3_CUDA_WATCHED(name, call);    \
        if (error_ != ncclSuccess && error_ != ncclInProgress) \
            return failed(name, error_, __FILE__, __LINE__);   \
    } while (0)

/* Called by MPI when a communicator is freed. What fails here has failed before. */
static int forget(MPI_Comm, int, void *value, void *)
{
    ncclComm_t c = (ncclComm_t)value;

    (void)ready(c, HY3_CUDA_WATCHED("ncclCommFinalize", ncclCommFinalize(c)), "ncclCommFinalize");
    for (int i = 0; i < nccl.count; i++)
        if (nccl.communicators[i] == c)
            nccl.communicators[i] = nccl.communicators[--nccl.count];
    (void)HY3_CUDA_WATCHED("ncclCommDestroy", ncclCommDestroy(c));
    return MPI_SUCCESS;
}

struct id_request {
    MPI_Request request;
    int error;
};

static bool has_arrived(void *context)
{
    struct id_request *r = (struct id_request *)context;
    int done = 0;

    r->error = MPI_Test(&r->request, &done, MPI_STATUS_IGNORE);
    return r->error != MPI_SUCCESS || done;
}

/* Collective on `group`. */
static hy3_status create(const struct hy3_group *group, ncclComm_t *out)
{
    struct {
        ncclResult_t error;
        ncclUniqueId id;
    } word = {};

    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    ncclResult_t begun;
    struct id_request id = {};

    config.blocking = 0;
    if (!nccl.has_key) {
        MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, forget, &nccl.key, NULL);
        nccl.has_key = true;
    }
    if (nccl.count == MOST_COMMUNICATORS)
        return failed("ncclCommInitRankConfig", ncclInvalidUsage, __FILE__, __LINE__);
    if (group->rank == 0)
        word.error = HY3_CUDA_WATCHED("ncclGetUniqueId", ncclGetUniqueId(&word.id));
    MPI_Ibcast(&word, (int)sizeof word, MPI_BYTE, 0, group->comm, &id.request);
    hy3_cuda_host.wait_on(has_arrived, &id, "creating NCCL's communicators", "another rank", true);
    if (id.error != MPI_SUCCESS)
        return hy3_cuda_failed("MPI_Ibcast of NCCL's id", "see the messages of the launcher", false,
                               __FILE__, __LINE__);
    if (word.error != ncclSuccess)
        return failed("ncclGetUniqueId", word.error, __FILE__, __LINE__);
    begun =
        HY3_CUDA_WATCHED("ncclCommInitRankConfig",
                         ncclCommInitRankConfig(out, group->size, word.id, group->rank, &config));
    if (begun != ncclSuccess && begun != ncclInProgress)
        return failed("ncclCommInitRankConfig", begun, __FILE__, __LINE__);
    nccl.communicators[nccl.count++] = *out;
    MPI_Comm_set_attr(group->comm, nccl.key, *out);
    NCCL_TRY(*out, "ncclCommInitRankConfig", begun);
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

static hy3_status open_group(const struct hy3_group *group)
{
    ncclComm_t communicator;

    return group->size == 1 ? HY3_OK : communicator_of(group, &communicator);
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
                             int64_t count, struct hy3_transfer *transfer)
{
    ncclComm_t communicator;

    transfer->event = NULL;
    if (group->size == 1 || count == 0)
        return HY3_OK;
    HY3_TRY(begin(stream, &nccl.weights, group, &communicator));
    NCCL_TRY(
        communicator, "ncclAllReduce",
        ncclAllReduce(data, data, (size_t)count, ncclFloat32, ncclSum, communicator, nccl.weights));
    return mark(nccl.weights, &transfer->event);
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
    NCCL_TRY(communicator, "ncclAllGather",
             ncclAllGather((const char *)data + (size_t)group->rank * bytes, data, bytes, ncclUint8,
                           communicator, nccl.weights));
    return mark(nccl.weights, &transfer->event);
}

static hy3_status reduce_scatter(struct hy3_stream *stream, const struct hy3_group *group,
                                 const void *data, void *own, int64_t count, hy3_dtype dtype,
                                 struct hy3_transfer *transfer)
{
    ncclDataType_t type = dtype == HY3_BF16 ? ncclBfloat16 : ncclFloat32;
    ncclComm_t communicator;

    transfer->event = NULL;
    if (group->size == 1)
        return hy3_cuda_device.copy(stream, own, data, (size_t)count * hy3_dtype_size(dtype));
    HY3_TRY(begin(stream, &nccl.weights, group, &communicator));
    NCCL_TRY(
        communicator, "ncclReduceScatter",
        ncclReduceScatter(data, own, (size_t)count, type, ncclSum, communicator, nccl.weights));
    return mark(nccl.weights, &transfer->event);
}

static hy3_status exchange_with(int rank, const struct hy3_all_to_all *rows,
                                const struct hy3_all_to_all_part *part, ncclComm_t communicator)
{
    size_t row = (size_t)part->row_bytes;

    if (part->send && rows->send_count[rank] > 0)
        NCCL_QUEUE("ncclSend",
                   ncclSend((const char *)part->send + (size_t)rows->send_first[rank] * row,
                            (size_t)rows->send_count[rank] * row, ncclUint8, rank, communicator,
                            nccl.rows));
    if (part->send && rows->receive_count[rank] > 0)
        NCCL_QUEUE("ncclRecv",
                   ncclRecv((char *)part->receive + (size_t)rows->receive_first[rank] * row,
                            (size_t)rows->receive_count[rank] * row, ncclUint8, rank, communicator,
                            nccl.rows));
    return HY3_OK;
}

static hy3_status all_to_all(struct hy3_stream *stream, const struct hy3_group *group,
                             const struct hy3_all_to_all *rows, const char *phase)
{
    struct hy3_transfer transfer = {};
    ncclComm_t communicator;

    HY3_TRY(begin(stream, &nccl.rows, group, &communicator));
    NCCL_TRY(communicator, "ncclGroupStart", ncclGroupStart());
    for (int i = 0; i < group->size * HY3_EXCHANGE_PARTS; i++)
        HY3_TRY(exchange_with(i / HY3_EXCHANGE_PARTS, rows, &rows->parts[i % HY3_EXCHANGE_PARTS],
                              communicator));
    NCCL_TRY(communicator, "ncclGroupEnd", ncclGroupEnd());
    HY3_TRY(mark(nccl.rows, &transfer.event));
    return finish(stream, &transfer, phase);
}

const char *hy3_cuda_library_name(void)
{
    static char name[32];
    int version = 0;

    (void)ncclGetVersion(&version);
    snprintf(name, sizeof name, "NCCL %d.%d.%d", version / 10000, version / 100 % 100,
             version % 100);
    return name;
}

const struct hy3_collectives hy3_cuda_collectives = {
    .open = open_group,
    .all_reduce = all_reduce,
    .all_gather = all_gather,
    .reduce_scatter = reduce_scatter,
    .finish = finish,
    .all_to_all = all_to_all,
};

static const char *trouble(void)
{
    for (int i = 0; i < nccl.count; i++) {
        ncclResult_t error = ncclSuccess;

        if (HY3_CUDA_WATCHED("ncclCommGetAsyncError",
                             ncclCommGetAsyncError(nccl.communicators[i], &error)) == ncclSuccess &&
            error != ncclSuccess && error != ncclInProgress)
            return ncclGetErrorString(error);
    }
    return NULL;
}

/* All at once: the end of one waits for the device, on which another one's kernel may run (NCCL
 * issue 1013). It may block all the same; the program does not wait for it. */
static void abandon(void)
{
    (void)ncclGroupStart();
    for (int i = 0; i < nccl.count; i++)
        (void)ncclCommAbort(nccl.communicators[i]);
    (void)ncclGroupEnd();
    nccl.count = 0;
}

const struct hy3_wait_library hy3_cuda_library = {
    .trouble = trouble,
    .last_words = last_words,
    .abandon = abandon,
};
