/* SPDX-License-Identifier: Apache-2.0 */
/* device.cu - memory, streams, events and copies of the GPU; scratch memory of kernels. */
#include "cuda/cuda.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct hy3_cuda_host hy3_cuda_host;

struct hy3_event {
    cudaEvent_t event;
};

static struct hy3_stream default_stream;
static const char *phase = "waiting for the GPU";

hy3_status hy3_cuda_failed(const char *call, const char *why, bool memory, const char *file,
                           int line)
{
    int name = (int)strcspn(call, "(<");

    return hy3_cuda_host.fail(
        memory ? HY3_ENOMEM : HY3_EDEVICE, file, line, "%.*s failed (%s line %d): %s; %s", name,
        call, strrchr(file, '/') ? strrchr(file, '/') + 1 : file, line, why,
        memory ? "the device is full: hy3_plan says what fits; more ranks, a higher zero_stage, "
                 "offload or a smaller max_seq_length need less of it"
               : "look at 'nvidia-smi' and at the kernel's log of this host; the same command "
                 "continues from the newest checkpoint");
}

struct hy3_stream *hy3_cuda_stream(struct hy3_stream *stream)
{
    return stream ? stream : &default_stream;
}

void hy3_cuda_note_phase(const char *last)
{
    phase = last;
}

/* A failure here comes from an earlier call, and the next one reports it. */
static void release(void *memory)
{
    (void)HY3_CUDA_WATCHED("cudaFree", cudaFree(memory));
}

/* Work of the device that is waited for: by polling, not inside the driver, so by ddp_timeout. */
struct wait {
    cudaStream_t stream; /* all it holds, unless there is an event */
    cudaEvent_t event;
    cudaError_t error;
};

static bool has_ended(void *context)
{
    struct wait *w = (struct wait *)context;

    w->error = w->event ? HY3_CUDA_WATCHED("cudaEventQuery", cudaEventQuery(w->event))
                        : HY3_CUDA_WATCHED("cudaStreamQuery", cudaStreamQuery(w->stream));
    return w->error != cudaErrorNotReady;
}

static hy3_status wait_for(struct wait *w, bool is_counted)
{
    hy3_cuda_host.wait_on(has_ended, w, phase, "the GPU or another rank", is_counted);
    if (w->error != cudaSuccess)
        return hy3_cuda_failed(w->event ? "cudaEventQuery" : "cudaStreamQuery",
                               cudaGetErrorString(w->error), false, __FILE__, __LINE__);
    return HY3_OK;
}

static hy3_status synchronize(struct hy3_stream *stream)
{
    struct wait w = {};

    w.stream = hy3_cuda_stream(stream)->stream;
    return wait_for(&w, true);
}

/* As synchronize, where other ranks may not do the same. */
static hy3_status synchronize_own(cudaStream_t stream)
{
    struct wait w = {};

    w.stream = stream;
    return wait_for(&w, false);
}

static hy3_status device_alloc(size_t bytes, void **out)
{
    void *memory = NULL;

    *out = NULL;
    if (bytes == 0)
        return HY3_OK;
    HY3_CUDA_TRY(cudaMalloc(&memory, bytes));
    *out = memory;
    HY3_CUDA_TRY(cudaMemsetAsync(memory, 0, bytes, 0));
    return synchronize_own(0);
}

static hy3_status host_alloc(size_t bytes, void **out)
{
    *out = NULL;
    if (bytes == 0)
        return HY3_OK;
    HY3_CUDA_TRY(cudaMallocHost(out, bytes));
    memset(*out, 0, bytes);
    return HY3_OK;
}

static void host_free(void *memory)
{
    if (memory)
        (void)HY3_CUDA_WATCHED("cudaFreeHost", cudaFreeHost(memory));
}

static hy3_status stream_create(struct hy3_stream **out)
{
    HY3_TRY(hy3_cuda_calloc(sizeof **out, out));
    HY3_CUDA_TRY(cudaStreamCreateWithFlags(&(*out)->stream, cudaStreamDefault));
    return HY3_OK;
}

static void stream_free(struct hy3_stream *s)
{
    if (!s)
        return;
    if (s->stream)
        (void)synchronize_own(s->stream);
    hy3_blas_free(s->blas);
    hy3_tiles_free(s->tiles);
    for (int i = 0; i < HY3_CUDA_SLOTS; i++)
        release(s->scratch[i].memory);
    for (int i = 0; i < HY3_UPLOADS; i++) {
        if (s->uploads[i].arrived)
            (void)HY3_CUDA_WATCHED("cudaEventDestroy", cudaEventDestroy(s->uploads[i].arrived));
        host_free(s->uploads[i].pinned);
    }
    if (s->stream)
        (void)HY3_CUDA_WATCHED("cudaStreamDestroy", cudaStreamDestroy(s->stream));
    free(s);
}

static hy3_status event_create(struct hy3_event **out)
{
    HY3_TRY(hy3_cuda_calloc(sizeof **out, out));
    HY3_CUDA_TRY(cudaEventCreateWithFlags(&(*out)->event, cudaEventDisableTiming));
    return HY3_OK;
}

static void event_free(struct hy3_event *e)
{
    if (e && e->event)
        (void)HY3_CUDA_WATCHED("cudaEventDestroy", cudaEventDestroy(e->event));
    free(e);
}

static hy3_status event_record(struct hy3_event *e, struct hy3_stream *stream)
{
    HY3_CUDA_TRY(cudaEventRecord(e->event, hy3_cuda_stream(stream)->stream));
    return HY3_OK;
}

static hy3_status event_wait(struct hy3_event *e, struct hy3_stream *stream)
{
    HY3_CUDA_TRY(cudaStreamWaitEvent(hy3_cuda_stream(stream)->stream, e->event, 0));
    return HY3_OK;
}

static hy3_status copy(struct hy3_stream *stream, void *to, const void *from, size_t bytes)
{
    if (bytes > 0)
        HY3_CUDA_TRY(
            cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, hy3_cuda_stream(stream)->stream));
    return HY3_OK;
}

static hy3_status zero(struct hy3_stream *stream, void *memory, size_t bytes)
{
    if (bytes > 0)
        HY3_CUDA_TRY(cudaMemsetAsync(memory, 0, bytes, hy3_cuda_stream(stream)->stream));
    return HY3_OK;
}

static hy3_status available(size_t *bytes)
{
    size_t total;

    HY3_CUDA_TRY(cudaMemGetInfo(bytes, &total));
    return HY3_OK;
}

static hy3_status identify(struct hy3_device_identity *out)
{
    struct cudaDeviceProp properties;
    int device, is_shared = 0;

    *out = {};
    HY3_CUDA_TRY(cudaGetDevice(&device));
    HY3_CUDA_TRY(cudaGetDeviceProperties(&properties, device));
#if CUDART_VERSION >= 12040
    HY3_CUDA_TRY(cudaDeviceGetAttribute(&is_shared, cudaDevAttrMpsEnabled, device));
#endif
    snprintf(out->name, sizeof out->name, "%.63s", properties.name);
    memcpy(out->uuid, &properties.uuid, sizeof out->uuid);
    out->bus[0] = properties.pciDomainID;
    out->bus[1] = properties.pciBusID;
    out->bus[2] = properties.pciDeviceID;
    out->is_slice = strstr(properties.name, " MIG ") != NULL;
    out->is_shared = is_shared != 0;
    return HY3_OK;
}

const struct hy3_device hy3_cuda_device = {
    .alloc = device_alloc,
    .free = release,
    .alloc_host = host_alloc,
    .free_host = host_free,
    .stream_create = stream_create,
    .stream_free = stream_free,
    .synchronize = synchronize,
    .event_create = event_create,
    .event_free = event_free,
    .event_record = event_record,
    .event_wait = event_wait,
    .copy = copy,
    .zero = zero,
    .available = available,
    .identify = identify,
};

hy3_status hy3_cuda_calloc(size_t bytes, void *out)
{
    void *memory = calloc(1, bytes);

    memcpy(out, &memory, sizeof memory);
    if (!memory)
        return hy3_cuda_host.fail(HY3_ENOMEM, __FILE__, __LINE__, "out of host memory (%zu bytes)",
                                  bytes);
    return HY3_OK;
}

hy3_status hy3_cuda_scratch(struct hy3_stream *stream, enum hy3_cuda_slot slot, size_t bytes,
                            void *out)
{
    struct hy3_stream *s = hy3_cuda_stream(stream);
    size_t capacity = bytes + bytes / 4;

    if (bytes > s->scratch[slot].capacity) {
        release(s->scratch[slot].memory); /* synchronizes with the device */
        s->scratch[slot].memory = NULL;
        s->scratch[slot].capacity = 0;
        HY3_CUDA_TRY(cudaMalloc(&s->scratch[slot].memory, capacity));
        s->scratch[slot].capacity = capacity;
    }
    memcpy(out, &s->scratch[slot].memory, sizeof(void *));
    return HY3_OK;
}

hy3_status hy3_cuda_upload(struct hy3_stream *stream, enum hy3_cuda_slot slot, const void *data,
                           size_t bytes, void *out)
{
    struct hy3_stream *s = hy3_cuda_stream(stream);
    struct hy3_cuda_upload *u = &s->uploads[s->next_upload];
    struct wait w = {};

    s->next_upload = (s->next_upload + 1) % HY3_UPLOADS;
    HY3_TRY(hy3_cuda_scratch(s, slot, bytes, out));
    if (!u->arrived)
        HY3_CUDA_TRY(cudaEventCreateWithFlags(&u->arrived, cudaEventDisableTiming));
    w.event = u->arrived;
    HY3_TRY(wait_for(&w, false));
    if (bytes > u->capacity) {
        host_free(u->pinned);
        u->pinned = NULL;
        u->capacity = 0;
        HY3_CUDA_TRY(cudaMallocHost(&u->pinned, 2 * bytes));
        u->capacity = 2 * bytes;
    }
    memcpy(u->pinned, data, bytes);
    HY3_CUDA_TRY(cudaMemcpyAsync(s->scratch[slot].memory, u->pinned, bytes, cudaMemcpyHostToDevice,
                                 s->stream));
    HY3_CUDA_TRY(cudaEventRecord(u->arrived, s->stream));
    return HY3_OK;
}
