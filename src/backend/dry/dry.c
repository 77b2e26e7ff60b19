/* SPDX-License-Identifier: Apache-2.0 */
/* dry.c - addresses, counters and clocks. */
#include "backend/dry/dry.h"

#include "backend/dry/parts.h"

#include <math.h>
#include <sys/mman.h>

enum { MAX_BLOCKS = 1 << 16, PAGE = 4096 };

static const size_t space_bytes = (size_t)1 << 46; /* of addresses */

static struct {
    char *space; /* nothing lies here, but for blocks of the host: the program uses them */
    size_t used;

    struct {
        char *begin;
        size_t bytes;
        bool host;
    } blocks[MAX_BLOCKS];

    int count;
    const int64_t *starts; /* the last index of routed rows */
    double rows;           /* of an owner */
    int64_t owners;
    struct hy3_dry_counts counts;
} dry;

static bool is_dry(const void *memory)
{
    return (const char *)memory >= dry.space && (const char *)memory < dry.space + space_bytes;
}

static hy3_status take(size_t bytes, bool host, void **out)
{
    size_t rounded = (bytes + 63) / 64 * 64;
    size_t *now = host ? &dry.counts.host : &dry.counts.device;
    size_t *peak = host ? &dry.counts.host_peak : &dry.counts.device_peak;

    *out = NULL;
    if (bytes == 0)
        return HY3_OK;
    if (host)
        dry.used = (dry.used + PAGE - 1) / PAGE * PAGE;
    if (dry.count == MAX_BLOCKS || rounded + PAGE > space_bytes - dry.used)
        HY3_FAIL(HY3_ENOMEM, "the plan is too large to be counted");
    if (host && mprotect(dry.space + dry.used, rounded, PROT_READ | PROT_WRITE) != 0)
        HY3_FAIL(HY3_ENOMEM, "no memory for the host's arrays of a plan (%zu bytes)", rounded);
    *out = dry.space + dry.used;
    dry.used += host ? (rounded + PAGE - 1) / PAGE * PAGE : rounded;
    dry.blocks[dry.count].begin = *out;
    dry.blocks[dry.count].bytes = rounded;
    dry.blocks[dry.count++].host = host;
    *now += rounded;
    *peak = *now > *peak ? *now : *peak;
    return HY3_OK;
}

static hy3_status device_alloc(size_t bytes, void **out)
{
    return take(bytes, false, out);
}

static hy3_status host_alloc(size_t bytes, void **out)
{
    return take(bytes, true, out);
}

static void give(void *memory)
{
    for (int i = dry.count - 1; memory && i >= 0; i--) {
        if (dry.blocks[i].begin != memory)
            continue;
        *(dry.blocks[i].host ? &dry.counts.host : &dry.counts.device) -= dry.blocks[i].bytes;
        dry.blocks[i] = dry.blocks[--dry.count];
        return;
    }
}

bool hy3_dry_is_host(const void *memory)
{
    for (int i = 0; is_dry(memory) && i < dry.count; i++)
        if ((const char *)memory >= dry.blocks[i].begin &&
            (const char *)memory < dry.blocks[i].begin + dry.blocks[i].bytes)
            return dry.blocks[i].host;
    return true;
}

/* Over the host's bus where one side is the host's. What the host itself allocated is not pinned:
 * it waits for such a copy from the device, and makes one itself before one to the device. */
static void time_copy(struct hy3_stream *stream, const void *to, bool to_host, bool from_host,
                      size_t bytes)
{
    const struct hy3_rates *r = hy3_timeline_rates();
    struct hy3_cost cost = {HY3_COPY, (double)bytes / r->host_copy + 2 * r->kernel, 0, 1};

    if (to_host == from_host) {
        cost.work = HY3_ELEMENTWISE;
        cost.seconds = 2 * (double)bytes / r->memory + r->kernel;
    }
    hy3_timeline_work(stream,
                      to_host     ? "copy to host"
                      : from_host ? "copy from host"
                                  : "copy",
                      cost);
    if (to_host && !is_dry(to))
        hy3_timeline_wait(stream);
}

static void count_copy(struct hy3_stream *stream, const void *to, const void *from, size_t bytes)
{
    bool to_host = hy3_dry_is_host(to), from_host = hy3_dry_is_host(from);

    dry.counts.copied += to_host == from_host ? 0 : (double)bytes;
    if (hy3_timeline_rates())
        time_copy(stream, to, to_host, from_host, bytes);
}

/* What is read back is zero, as pinned memory is from the beginning, but for the numbers of routed
 * rows: these are even, and those of different owners as many as are expected. */
static hy3_status copy(struct hy3_stream *stream, void *to, const void *from, size_t bytes)
{
    int64_t *starts = to;

    if (bytes > 0)
        count_copy(stream, to, from, bytes);
    if (bytes == 0 || (is_dry(to) && (from != dry.starts || !hy3_dry_is_host(to))))
        return HY3_OK;
    if (!is_dry(from))
        memcpy(to, from, bytes);
    else if (from != dry.starts)
        memset(to, 0, bytes);
    else
        for (int64_t g = 0; g <= dry.owners; g++)
            starts[g] = (int64_t)(dry.rows * (double)g + 1e-6);
    return HY3_OK;
}

static hy3_status zero(struct hy3_stream *stream, void *memory, size_t bytes)
{
    const struct hy3_rates *r = hy3_timeline_rates();

    if (bytes > 0 && r)
        hy3_timeline_work(
            stream, "zero",
            (struct hy3_cost){HY3_ELEMENTWISE, (double)bytes / r->memory + r->kernel, 0, 1});
    if (bytes > 0 && !is_dry(memory))
        memset(memory, 0, bytes);
    return HY3_OK;
}

static hy3_status count_rows(struct hy3_stream *stream, const struct hy3_route_index *args)
{
    double none = 1, experts = (double)(args->G * args->width);

    for (int64_t j = 0; j < args->k; j++) /* that none of a token's experts is an owner's */
        none *= fmax(0, experts - (double)(args->width + j)) / (experts - (double)j);
    dry.starts = args->starts;
    dry.rows = (double)args->T * (1 - none);
    dry.owners = args->G;
    return hy3_dry_kernels.route_index(stream, args);
}

static double others(const struct hy3_group *group)
{
    return group->size - 1;
}

static void count_sum(const struct hy3_group *group, double bytes)
{
    if (group->size > 1 && bytes > dry.counts.largest_sum)
        dry.counts.largest_sum = bytes;
}

static hy3_status all_reduce(struct hy3_stream *stream, const struct hy3_group *group, float *data,
                             int64_t count, struct hy3_transfer *transfer)
{
    double bytes = (double)count * sizeof *data;

    count_sum(group, bytes);
    dry.counts.reduced += 2 * others(group) / group->size * bytes;
    return hy3_timeline_begin_transfer(stream, HY3_TOTAL, group, bytes, &transfer->event);
}

static hy3_status all_gather(struct hy3_stream *stream, const struct hy3_group *group, void *data,
                             int64_t count, hy3_dtype dtype, struct hy3_transfer *transfer)
{
    double bytes = (double)count * (double)hy3_dtype_size(dtype);

    dry.counts.gathered += others(group) * bytes;
    return hy3_timeline_begin_transfer(stream, HY3_GATHER, group, group->size * bytes,
                                       &transfer->event);
}

static hy3_status reduce_scatter(struct hy3_stream *stream, const struct hy3_group *group,
                                 const void *data, void *own, int64_t count, hy3_dtype dtype,
                                 struct hy3_transfer *transfer)
{
    double bytes = (double)count * (double)hy3_dtype_size(dtype);

    count_sum(group, bytes * group->size);
    dry.counts.scattered += others(group) * bytes;
    return hy3_timeline_begin_transfer(stream, HY3_SUM, group, bytes * group->size,
                                       &transfer->event);
}

static hy3_status finish(struct hy3_stream *stream, struct hy3_transfer *transfer,
                         const char *phase)
{
    hy3_timeline_finish(stream, &transfer->event);
    return HY3_OK;
}

static hy3_status all_to_all(struct hy3_stream *stream, const struct hy3_group *group,
                             const struct hy3_all_to_all *rows, const char *phase)
{
    double rows_sent = 0, bytes = 0;

    for (int i = 0; i < HY3_EXCHANGE_PARTS; i++)
        bytes += rows->parts[i].send ? (double)rows->parts[i].row_bytes : 0;
    for (int r = 0; r < group->size; r++)
        rows_sent += (double)rows->send_count[r];
    hy3_timeline_exchange(stream, group, rows_sent * bytes / group->size);
    for (int r = 0; r < group->size; r++)
        if (r != group->rank)
            dry.counts.exchanged += (double)rows->send_count[r] * bytes;
    return HY3_OK;
}

static const struct hy3_backend table = {
    .name = "plan",
    .abi = HY3_BACKEND_ABI,
    .device = {.alloc = device_alloc,
               .free = give,
               .alloc_host = host_alloc,
               .free_host = give,
               .stream_create = hy3_timeline_stream_create,
               .stream_free = hy3_timeline_stream_free,
               .synchronize = hy3_timeline_synchronize,
               .event_create = hy3_timeline_event_create,
               .event_free = hy3_timeline_event_free,
               .event_record = hy3_timeline_event_record,
               .event_wait = hy3_timeline_event_wait,
               .copy = copy,
               .zero = zero},
    .collectives = {.all_reduce = all_reduce,
                    .all_gather = all_gather,
                    .reduce_scatter = reduce_scatter,
                    .finish = finish,
                    .all_to_all = all_to_all},
};

const struct hy3_backend *hy3_dry_backend(const struct hy3_timeline_options *options)
{
    static struct hy3_backend ready;
    const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;

    hy3_timeline_begin(options);
    ready = table;
    ready.kernels = hy3_dry_kernels;
    ready.kernels.route_index = count_rows;
    if (!dry.space)
        /* cppcheck-suppress invalidFunctionArg ; -1 is what MAP_ANONYMOUS asks for */
        dry.space = mmap(NULL, space_bytes, PROT_NONE, flags, -1, 0);
    if (dry.space == MAP_FAILED)
        HY3_BUG("this system gives no %zu bytes of address space", space_bytes);
    (void)mprotect(dry.space, dry.used, PROT_NONE);
    (void)madvise(dry.space, dry.used, MADV_DONTNEED);
    dry.used = 0;
    dry.count = 0;
    dry.starts = NULL;
    dry.counts = (struct hy3_dry_counts){0};
    return &ready;
}

struct hy3_dry_counts hy3_dry_counts(void)
{
    return dry.counts;
}

void hy3_dry_forget_traffic(void)
{
    dry.counts.reduced = dry.counts.gathered = dry.counts.scattered = dry.counts.exchanged = 0;
    dry.counts.copied = 0;
}
