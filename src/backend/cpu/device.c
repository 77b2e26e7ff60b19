/* SPDX-License-Identifier: Apache-2.0 */
/* device.c - the CPU as a device: its memory is host memory, its streams are immediate. */
#include "backend/cpu/cpu.h"
#include "base/memory.h"

static hy3_status device_alloc(size_t bytes, void **out)
{
    return hy3_alloc(out, bytes, 1);
}

static hy3_status copy(struct hy3_stream *stream, void *to, const void *from, size_t bytes)
{
    if (bytes > 0)
        memcpy(to, from, bytes);
    return HY3_OK;
}

static hy3_status zero(struct hy3_stream *stream, void *memory, size_t bytes)
{
    if (bytes > 0)
        memset(memory, 0, bytes);
    return HY3_OK;
}

static hy3_status stream_create(struct hy3_stream **out)
{
    *out = NULL;
    return HY3_OK;
}

static void stream_free(struct hy3_stream *stream)
{
}

static hy3_status synchronize(struct hy3_stream *stream)
{
    return HY3_OK;
}

static hy3_status event_create(struct hy3_event **out)
{
    *out = NULL;
    return HY3_OK;
}

static void event_free(struct hy3_event *event)
{
}

static hy3_status event_at(struct hy3_event *event, struct hy3_stream *stream)
{
    return HY3_OK;
}

const struct hy3_device hy3_cpu_device = {
    .alloc = device_alloc,
    .free = hy3_free,
    .alloc_host = device_alloc,
    .free_host = hy3_free,
    .stream_create = stream_create,
    .stream_free = stream_free,
    .synchronize = synchronize,
    .event_create = event_create,
    .event_free = event_free,
    .event_record = event_at,
    .event_wait = event_at,
    .copy = copy,
    .zero = zero,
};

hy3_status hy3_cpu_scratch(enum hy3_cpu_slot slot, size_t bytes, void *out)
{
    static struct {
        char *data;
        size_t capacity;
    } slots[HY3_SLOTS];

    if (bytes > slots[slot].capacity) {
        hy3_free(slots[slot].data);
        slots[slot].data = NULL;
        slots[slot].capacity = 0;
        HY3_TRY(hy3_alloc(&slots[slot].data, bytes + bytes / 4, 1));
        slots[slot].capacity = bytes + bytes / 4;
    }
    memcpy(out, &slots[slot].data, sizeof slots[slot].data);
    return HY3_OK;
}
