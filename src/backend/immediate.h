/* SPDX-License-Identifier: Apache-2.0 */
/* immediate.h - streams and events of a backend that does at once what it is asked for. */
#pragma once

#include "backend/device.h"

static inline hy3_status hy3_immediate_stream_create(struct hy3_stream **out)
{
    *out = NULL;
    return HY3_OK;
}

static inline void hy3_immediate_stream_free(struct hy3_stream *stream)
{
}

static inline hy3_status hy3_immediate_synchronize(struct hy3_stream *stream)
{
    return HY3_OK;
}

static inline hy3_status hy3_immediate_event_create(struct hy3_event **out)
{
    *out = NULL;
    return HY3_OK;
}

static inline void hy3_immediate_event_free(struct hy3_event *event)
{
}

static inline hy3_status hy3_immediate_event(struct hy3_event *event, struct hy3_stream *stream)
{
    return HY3_OK;
}
