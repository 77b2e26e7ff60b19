/* SPDX-License-Identifier: Apache-2.0 */
/* timeline.c - clocks, and the model of the links. */
#include "backend/dry/timeline.h"

#include "base/memory.h"

struct hy3_stream {
    double at; /* done with all it was given */
    int number;
    struct hy3_timing timing;
    struct hy3_stream *next;
};

struct hy3_event {
    double at, seconds; /* seconds: of a transfer */

    enum { OF_STREAM, OF_GATHER, OF_SUM } of;
};

/* The queues of the links: of weights and gradients, and of rows to experts and back. */
enum { WEIGHTS, ROWS, QUEUES };

enum { LINKS = 98 }; /* number of their first line in the trace */

static struct {
    struct hy3_timeline_options options;
    double host, links[QUEUES], began;
    double zero;                       /* of the trace */
    struct hy3_stream first, *streams; /* NULL is the first one */
    int count;
    double links_busy;
    int64_t launches, synchronizations;
    FILE *trace; /* NULL: none */
} line;

static double later(double a, double b)
{
    return a > b ? a : b;
}

static struct hy3_stream *stream_at(struct hy3_stream *stream)
{
    return stream ? stream : &line.first;
}

const struct hy3_rates *hy3_timeline_rates(void)
{
    return line.options.rates;
}

double hy3_timeline_imbalance(void)
{
    return line.options.imbalance;
}

double hy3_timeline_now(void)
{
    return line.host;
}

void hy3_timeline_trace(FILE *file)
{
    static const char *const names[QUEUES] = {"weights, gradients", "rows"};

    if (line.trace)
        fprintf(line.trace, "\n]}\n");
    line.trace = file;
    line.zero = line.began;
    for (int i = 0; file && i < QUEUES; i++)
        fprintf(file,
                "%s\n{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":0,\"tid\":%d,\"args\":{"
                "\"name\":\"links: %s\"}}",
                i == 0 ? "{\"traceEvents\":[" : ",", LINKS + i, names[i]);
}

static void trace(const char *name, double from, double seconds, int number)
{
    if (line.trace && seconds > 0)
        fprintf(line.trace,
                ",\n{\"name\":\"%s\",\"ph\":\"X\",\"pid\":0,\"tid\":%d,\"ts\":%.3f,\"dur\":%.3f}",
                name, number, 1e6 * (from - line.zero), 1e6 * seconds);
}

void hy3_timeline_begin(const struct hy3_timeline_options *options)
{
    memset(&line, 0, sizeof line);
    line.options = *options;
    line.streams = &line.first;
    line.count = 1;
}

/* The stream that computed most is the one whose seconds are told. */
static const struct hy3_stream *computing(void)
{
    const struct hy3_stream *best = line.streams;
    double most = -1;

    for (const struct hy3_stream *s = line.streams; s; s = s->next) {
        double busy = 0;

        for (int w = 0; w < HY3_COPY; w++)
            busy += s->timing.busy[w];
        if (busy > most)
            best = s;
        most = later(busy, most);
    }
    return best;
}

struct hy3_timing hy3_timeline_lap(void)
{
    struct hy3_timing timing = computing()->timing;
    double end = later(line.host, later(line.links[WEIGHTS], line.links[ROWS]));

    for (struct hy3_stream *s = line.streams; s; s = s->next)
        end = later(end, s->at);
    timing.seconds = end - line.began;
    timing.links = line.links_busy;
    timing.launches = line.launches;
    timing.synchronizations = line.synchronizations;
    timing.flops = 0;
    for (struct hy3_stream *s = line.streams; s; s = s->next) {
        timing.flops += s->timing.flops;
        s->timing = (struct hy3_timing){0};
        s->at = end;
    }
    line.host = line.links[WEIGHTS] = line.links[ROWS] = line.began = end;
    line.links_busy = 0;
    line.launches = line.synchronizations = 0;
    return timing;
}

void hy3_timing_add(struct hy3_timing *sum, const struct hy3_timing *lap, double times)
{
    sum->seconds += times * lap->seconds;
    for (int w = 0; w < HY3_WORKS; w++)
        sum->busy[w] += times * lap->busy[w];
    sum->gathers += times * lap->gathers;
    sum->sums += times * lap->sums;
    sum->exchange += times * lap->exchange;
    sum->copies += times * lap->copies;
    sum->host += times * lap->host;
    sum->links += times * lap->links;
    sum->flops += times * lap->flops;
    sum->launches += (int64_t)times * lap->launches;
    sum->synchronizations += (int64_t)times * lap->synchronizations;
}

void hy3_timeline_work(struct hy3_stream *stream, const char *name, struct hy3_cost cost)
{
    struct hy3_stream *s = stream_at(stream);
    const struct hy3_rates *r = line.options.rates;
    double start, launches = r ? cost.launches * r->launch : 0;

    if (!r)
        return;
    /* the first kernel can begin after one launch, the last not before all are launched */
    line.host += launches;
    start = later(s->at, line.host - (cost.launches > 0 ? launches - r->launch : 0));
    if (cost.launches == 0 || !r->overlap)
        start = later(s->at, line.host);
    s->timing.host += start - s->at;
    s->at = later(start + cost.seconds, line.host);
    s->timing.busy[cost.work] += cost.seconds;
    s->timing.flops += cost.flops;
    line.launches += cost.launches;
    if (cost.launches == 0 || !r->overlap)
        line.host = s->at;
    trace(name, start, cost.seconds, s->number);
}

void hy3_timeline_wait(struct hy3_stream *stream)
{
    line.host = later(line.host, stream_at(stream)->at);
}

hy3_status hy3_timeline_synchronize(struct hy3_stream *stream)
{
    if (!line.options.rates)
        return HY3_OK;
    hy3_timeline_wait(stream);
    line.host += line.options.rates->wait;
    line.synchronizations++;
    return HY3_OK;
}

hy3_status hy3_timeline_stream_create(struct hy3_stream **out)
{
    HY3_TRY(hy3_alloc(out, 1, sizeof **out));
    (*out)->number = line.count++;
    (*out)->next = line.streams;
    line.streams = *out;
    return HY3_OK;
}

void hy3_timeline_stream_free(struct hy3_stream *stream)
{
    struct hy3_stream **at = &line.streams;

    while (*at && *at != stream)
        at = &(*at)->next;
    if (!stream || !*at)
        return;
    *at = stream->next;
    hy3_free(stream);
}

hy3_status hy3_timeline_event_create(struct hy3_event **out)
{
    return hy3_alloc(out, 1, sizeof **out);
}

void hy3_timeline_event_free(struct hy3_event *event)
{
    hy3_free(event);
}

hy3_status hy3_timeline_event_record(struct hy3_event *event, struct hy3_stream *stream)
{
    event->at = stream_at(stream)->at;
    return HY3_OK;
}

hy3_status hy3_timeline_event_wait(struct hy3_event *event, struct hy3_stream *stream)
{
    struct hy3_stream *s = stream_at(stream);

    if (event && event->at > s->at) {
        s->timing.copies += event->at - s->at;
        s->at = event->at;
    }
    return HY3_OK;
}

/* Ranks of the group that share a node. */
static int in_a_node(const struct hy3_group *group)
{
    int near = line.options.ranks_per_node / group->apart;

    near = near > 1 ? near : 1;
    return near < group->size ? near : group->size;
}

/* Seconds in which a tensor of `bytes` goes round the ring once. Over nodes all ranks of a node use
 * their own adapter, one part of the tensor each. */
static double ring(const struct hy3_group *group, double bytes)
{
    const struct hy3_rates *r = line.options.rates;
    int near = in_a_node(group);
    double part = bytes * (group->size - 1) / group->size, rate = near * r->network;

    if (near == group->size)
        return part / r->node_link + r->node_latency;
    if (near > 1 && rate > r->node_link)
        rate = r->node_link;
    return part / rate + group->size * r->network_latency;
}

/* A transfer of that queue, which is what a stream of its own is on a device. */
static double enqueue(int queue, const char *name, double start, double seconds)
{
    double *links = &line.links[queue];

    start = later(start, *links);
    *links = start + seconds;
    line.links_busy += seconds;
    trace(name, start, seconds, LINKS + queue);
    return *links;
}

hy3_status hy3_timeline_begin_transfer(struct hy3_stream *stream, enum hy3_link_use use,
                                       const struct hy3_group *group, double bytes,
                                       struct hy3_event **event)
{
    const struct hy3_rates *r = line.options.rates;

    *event = NULL;
    if (!r || group->size == 1)
        return HY3_OK;
    HY3_TRY(hy3_timeline_event_create(event));
    (*event)->of = use == HY3_GATHER ? OF_GATHER : OF_SUM;
    (*event)->seconds = (use == HY3_TOTAL ? 2 : 1) * ring(group, bytes);
    line.host += 2 * r->launch;
    if (r->overlap)
        (*event)->at = enqueue(WEIGHTS, use == HY3_GATHER ? "gather" : "reduce-scatter",
                               later(stream_at(stream)->at, line.host), (*event)->seconds);
    return HY3_OK;
}

void hy3_timeline_finish(struct hy3_stream *stream, struct hy3_event **event)
{
    struct hy3_stream *s = stream_at(stream);
    double waited;

    if (!*event)
        return;
    if (!line.options.rates->overlap)
        (*event)->at = line.host =
            enqueue(WEIGHTS, (*event)->of == OF_GATHER ? "gather" : "reduce-scatter",
                    later(s->at, line.host), (*event)->seconds);
    waited = (*event)->at - s->at;
    if (waited > 0) {
        *((*event)->of == OF_GATHER ? &s->timing.gathers : &s->timing.sums) += waited;
        s->at = (*event)->at;
    }
    hy3_timeline_event_free(*event);
    *event = NULL;
}

/* Each rank sends to ranks of its node over the links of the node, to others over its adapter. */
void hy3_timeline_exchange(struct hy3_stream *stream, const struct hy3_group *group, double bytes)
{
    const struct hy3_rates *r = line.options.rates;
    struct hy3_stream *s = stream_at(stream);
    int near = in_a_node(group), far = group->size - near;
    double seconds, end;

    if (!r || group->size == 1)
        return;
    bytes *= line.options.imbalance;
    seconds = later((near - 1) * bytes / r->node_link + r->node_latency,
                    far > 0 ? far * bytes / r->network + group->size * r->network_latency : 0);
    line.host += 2 * r->launch;
    end = enqueue(ROWS, "exchange", later(s->at, line.host), seconds);
    s->timing.exchange += end - s->at;
    s->at = end;
    if (!r->overlap)
        line.host = end;
}
