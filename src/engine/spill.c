/* SPDX-License-Identifier: Apache-2.0 */
/* spill.c - copies of layers' arrays to host memory and back. */
#include "engine/spill.h"

hy3_status hy3_spill_open(const struct hy3_device *device, int first, int layers, size_t bytes,
                          struct hy3_spill *s)
{
    int last = layers - (HY3_SPILL_SLOTS - 1);
    void *host = NULL;

    *s = (struct hy3_spill){.device = device, .bytes = bytes, .first = first};
    s->last = last > first ? last : first;
    HY3_TRY(device->stream_create(&s->stream));
    HY3_TRY(device->event_create(&s->ready));
    for (int i = 0; i < HY3_SPILL_SLOTS; i++)
        HY3_TRY(device->event_create(&s->copied[i]));
    if (s->last > first)
        HY3_TRY(device->alloc_host((size_t)(s->last - first) * bytes, &host));
    s->host = host;
    return HY3_OK;
}

void hy3_spill_close(struct hy3_spill *s)
{
    if (!s->device)
        return;
    if (s->stream) {
        (void)s->device->synchronize(s->stream);
        s->device->stream_free(s->stream);
    }
    if (s->ready)
        s->device->event_free(s->ready);
    for (int i = 0; i < HY3_SPILL_SLOTS; i++)
        if (s->copied[i])
            s->device->event_free(s->copied[i]);
    s->device->free_host(s->host);
    *s = (struct hy3_spill){0};
}

static bool is_copied(const struct hy3_spill *s, int i)
{
    return s->device && i >= s->first && i < s->last;
}

/* A copy behind what the stream has been given so far. */
static hy3_status begin_copy(struct hy3_spill *s, struct hy3_stream *stream, int i, void *to,
                             const void *from, size_t bytes)
{
    const struct hy3_device *device = s->device;

    HY3_ASSERT(bytes <= s->bytes);
    HY3_TRY(device->event_record(s->ready, stream));
    HY3_TRY(device->event_wait(s->ready, s->stream));
    HY3_TRY(device->copy(s->stream, to, from, bytes));
    return device->event_record(s->copied[i % HY3_SPILL_SLOTS], s->stream);
}

static char *place(const struct hy3_spill *s, int i)
{
    return s->host + (size_t)(i - s->first) * s->bytes;
}

hy3_status hy3_spill_take(struct hy3_spill *s, struct hy3_stream *stream, int i)
{
    if (!is_copied(s, i - HY3_SPILL_SLOTS))
        return HY3_OK;
    return s->device->event_wait(s->copied[i % HY3_SPILL_SLOTS], stream);
}

hy3_status hy3_spill_give(struct hy3_spill *s, struct hy3_stream *stream, int i, const void *array,
                          size_t bytes)
{
    if (!is_copied(s, i))
        return HY3_OK;
    return begin_copy(s, stream, i, place(s, i), array, bytes);
}

hy3_status hy3_spill_return(struct hy3_spill *s, struct hy3_stream *stream, int i, void *below,
                            size_t bytes)
{
    if (is_copied(s, i))
        HY3_TRY(s->device->event_wait(s->copied[i % HY3_SPILL_SLOTS], stream));
    if (!is_copied(s, i - 1))
        return HY3_OK;
    return begin_copy(s, stream, i - 1, below, place(s, i - 1), bytes);
}
