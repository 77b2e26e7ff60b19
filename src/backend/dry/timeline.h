/* SPDX-License-Identifier: Apache-2.0 */
/* timeline.h - clocks of the dry backend: when each stream, the links and the host would be done.
 *
 * A kernel begins when its stream is free and the host has launched it; gathers and sums of all
 * groups share one queue, exchanges another, as on the GPU; events make a stream wait. Without
 * rates nothing takes time. Local; one timeline at a time. */
#pragma once

#include "backend/dry/rates.h"
#include "base/error.h"
#include "comm/group.h"

struct hy3_stream;
struct hy3_event;

enum hy3_work { HY3_PRODUCTS, HY3_ATTENTION, HY3_ELEMENTWISE, HY3_COPY, HY3_WORKS };

/* Of one kernel. */
struct hy3_cost {
    enum hy3_work work;
    double seconds, flops;
    int launches;
};

/* Seconds of the stream that computes, and what the host and the links did meanwhile. */
struct hy3_timing {
    double seconds;
    double busy[HY3_WORKS];
    double gathers, sums, exchange; /* waited for collectives that were not done yet */
    double copies;                  /* waited for copies between host and device */
    double host;                    /* waited for the host: launches, synchronizations */
    double links, flops;
    int64_t launches, synchronizations;
};

/* The machine: rates (NULL: no time passes), ranks of a node; rows of the busiest rank's experts by
 * their mean. */
struct hy3_timeline_options {
    const struct hy3_rates *rates;
    int ranks_per_node;
    double imbalance;
};

/* All clocks at zero. *options is copied, its rates are borrowed. */
void hy3_timeline_begin(const struct hy3_timeline_options *options);

/* NULL without rates. */
const struct hy3_rates *hy3_timeline_rates(void);

/* Writes what follows into a Chrome trace (a line a stream), until it is called with NULL. */
void hy3_timeline_trace(FILE *file);

/* Rows of the busiest rank's experts by their mean. */
double hy3_timeline_imbalance(void);

/* Seconds on the host's clock. */
double hy3_timeline_now(void);

/* What passed since the last lap; all wait for each other. */
struct hy3_timing hy3_timeline_lap(void);

/* Adds to *sum `times` what a lap took. */
void hy3_timing_add(struct hy3_timing *sum, const struct hy3_timing *lap, double times);

/* A kernel or copy; cost.launches 0: done by the host itself. */
void hy3_timeline_work(struct hy3_stream *stream, const char *name, struct hy3_cost cost);

/* The host waits for the stream. */
void hy3_timeline_wait(struct hy3_stream *stream);

hy3_status hy3_timeline_stream_create(struct hy3_stream **out);
void hy3_timeline_stream_free(struct hy3_stream *stream);
hy3_status hy3_timeline_synchronize(struct hy3_stream *stream);
hy3_status hy3_timeline_event_create(struct hy3_event **out);
void hy3_timeline_event_free(struct hy3_event *event);
hy3_status hy3_timeline_event_record(struct hy3_event *event, struct hy3_stream *stream);
hy3_status hy3_timeline_event_wait(struct hy3_event *event, struct hy3_stream *stream);

enum hy3_link_use { HY3_GATHER, HY3_SUM, HY3_TOTAL /* of all: a sum, then a gather of it */ };

/* Begins a gather or a reduce-scatter of a tensor of `bytes` over the group; *event is NULL in a
 * group of one, and else ends with hy3_timeline_finish. Errors: HY3_ENOMEM. */
hy3_status hy3_timeline_begin_transfer(struct hy3_stream *stream, enum hy3_link_use use,
                                       const struct hy3_group *group, double bytes,
                                       struct hy3_event **event);
void hy3_timeline_finish(struct hy3_stream *stream, struct hy3_event **event);

/* An exchange of rows that the stream waits for: `bytes` to each rank of the group, itself
 * included. */
void hy3_timeline_exchange(struct hy3_stream *stream, const struct hy3_group *group, double bytes);
