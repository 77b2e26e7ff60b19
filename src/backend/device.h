/* SPDX-License-Identifier: Apache-2.0 */
/* device.h - memory, streams, events and copies of a backend. No MPI: a device is known to one
 * process. */
#pragma once

#include "base/error.h"

#include <string.h>

struct hy3_stream; /* opaque, of one backend; on the CPU everything is immediate */
struct hy3_event;  /* opaque, of one backend */

/* Which device it is. */
struct hy3_device_identity {
    char name[64];
    unsigned char uuid[16];
    int bus[3];               /* domain, bus, device: of the whole GPU where it is a slice */
    bool is_slice, is_shared; /* MIG; MPS */
};

/* Memory, streams, events, copies. Sizes in bytes. Local. */
struct hy3_device {
    hy3_status (*alloc)(size_t bytes, void **out);      /* device memory, zeroed, 64-byte aligned */
    void (*free)(void *memory);                         /* NULL is fine */
    hy3_status (*alloc_host)(size_t bytes, void **out); /* pinned where that matters, zeroed */
    void (*free_host)(void *memory);
    hy3_status (*stream_create)(struct hy3_stream **out);
    void (*stream_free)(struct hy3_stream *stream);
    hy3_status (*synchronize)(struct hy3_stream *stream); /* all work of the stream is done */
    hy3_status (*event_create)(struct hy3_event **out);
    void (*event_free)(struct hy3_event *event);
    hy3_status (*event_record)(struct hy3_event *event, struct hy3_stream *stream);
    hy3_status (*event_wait)(struct hy3_event *event, struct hy3_stream *stream);
    /* Stream-ordered; host memory must stay until synchronize. Either side may be host or
     * device. */
    hy3_status (*copy)(struct hy3_stream *stream, void *to, const void *from, size_t bytes);
    hy3_status (*zero)(struct hy3_stream *stream, void *memory, size_t bytes);
    /* Bytes of the device that are free; NULL: its memory is the host's. */
    hy3_status (*available)(size_t *bytes);
    hy3_status (*identify)(struct hy3_device_identity *out); /* NULL: it is the host itself */
};

/* Local. An array of what is copied in every step, in pinned host memory, zeroed: a copy of memory
 * that is not pinned may wait inside the driver. `out`: the address of a pointer of any type;
 * released by free_host. */
static inline hy3_status hy3_device_host_array(const struct hy3_device *device, size_t count,
                                               size_t size, void *out)
{
    void *memory = NULL;
    hy3_status status = device->alloc_host(count * size, &memory);

    memcpy(out, &memory, sizeof memory);
    return status;
}
