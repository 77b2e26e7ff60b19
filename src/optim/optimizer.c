/* SPDX-License-Identifier: Apache-2.0 */
/* optimizer.c - AdamW state of this rank's ranges: moments (moments.h) and the masters'
 * remainders, all ranges one after the other. */
#include "optim/optimizer.h"

#include "base/memory.h"
#include "optim/moments.h"

enum { PIECE = 1 << 20, STAGES = 2 }; /* elements copied at a time; copies in progress */

/* Copies of a weight and its gradient beside their state, where that is in other memory. While one
 * stage is updated the other is filled. */
struct stage {
    void *weight, *grad; /* [piece] beside the state */
    struct hy3_stream *stream;
    struct hy3_event *done;
};

struct hy3_optimizer {
    const struct hy3_backend *backend;
    const struct hy3_backend *updater; /* the backend, or the CPU's for state in host memory */
    struct hy3_optimizer_options options;
    struct hy3_range *ranges;
    int64_t *low_at; /* [count+1] where each range begins in low; fp32 weights have nothing there */
    int count;
    struct hy3_moments moments;      /* placed */
    int16_t *low;                    /* placed */
    double *device_sums, *host_sums; /* [count] sum of squares of each range */
    int64_t piece;                   /* PIECE, or the largest range if that is less */
    void *host[2];                   /* [piece] pinned, for get and put */
    bool is_staging;                 /* some range is updated through stages */
    struct stage stages[STAGES];
    struct hy3_event *begun;
    bool is_ready; /* hy3_optimizer_ready was called for the coming update */
};

static bool is_split(const struct hy3_range *range)
{
    return range->dtype == HY3_BF16;
}

static size_t weight_size(const struct hy3_range *range)
{
    return hy3_dtype_size(range->dtype);
}

/* Whether a range's weight or gradient is in other memory than the state. */
static bool is_staged(const struct hy3_optimizer *o, const struct hy3_range *range)
{
    return o->options.placement.host || range->on_host;
}

static bool is_weight_staged(const struct hy3_optimizer *o, const struct hy3_range *range)
{
    return o->options.placement.host != range->on_host;
}

static hy3_status copy_ranges(struct hy3_optimizer *o, const struct hy3_range *ranges, int count)
{
    HY3_TRY(hy3_alloc(&o->ranges, (size_t)count, sizeof *o->ranges));
    HY3_TRY(hy3_alloc(&o->low_at, (size_t)count + 1, sizeof *o->low_at));
    HY3_TRY(hy3_device_host_array(&o->backend->device, (size_t)count, sizeof *o->host_sums,
                                  &o->host_sums));
    for (int i = 0; i < count; i++) {
        int64_t used = hy3_moments_lead(&ranges[i]) + ranges[i].count;
        int64_t padded = (used + 15) / 16 * 16; /* 64 bytes */

        o->ranges[i] = ranges[i];
        o->low_at[i + 1] = o->low_at[i] + (is_split(&ranges[i]) ? padded : 0);
    }
    o->count = count;
    return HY3_OK;
}

static hy3_status open_stages(struct hy3_optimizer *o)
{
    const struct hy3_device *device = &o->backend->device;
    const struct hy3_placement beside = {.host = o->options.placement.host};
    size_t bytes = (size_t)o->piece * sizeof(float);

    HY3_TRY(device->event_create(&o->begun));
    for (int i = 0; i < STAGES; i++) {
        struct stage *s = &o->stages[i];

        HY3_TRY(hy3_placement_alloc(device, &beside, bytes, &s->weight));
        HY3_TRY(hy3_placement_alloc(device, &beside, bytes, &s->grad));
        HY3_TRY(device->stream_create(&s->stream));
        HY3_TRY(device->event_create(&s->done));
    }
    return HY3_OK;
}

/* Copies must complete before their memory is freed. */
static void close_stages(struct hy3_optimizer *o)
{
    const struct hy3_device *device = &o->backend->device;
    const struct hy3_placement beside = {.host = o->options.placement.host};

    for (int i = 0; i < STAGES; i++) {
        struct stage *s = &o->stages[i];

        device->stream_free(s->stream);
        if (s->done)
            device->event_free(s->done);
        hy3_placement_free(device, &beside, 0, s->weight);
        hy3_placement_free(device, &beside, 0, s->grad);
    }
    if (o->begun)
        device->event_free(o->begun);
}

static hy3_status allocate(struct hy3_optimizer *o)
{
    const struct hy3_device *device = &o->backend->device;
    const struct hy3_placement *placement = &o->options.placement;
    size_t low = (size_t)o->low_at[o->count];
    void *sums = NULL;
    int64_t largest = 0;

    HY3_TRY(hy3_moments_open(device, placement, o->ranges, o->count, &o->moments));
    if (low > 0)
        HY3_TRY(hy3_placement_alloc(device, placement, low * sizeof *o->low, &o->low));
    HY3_TRY(device->alloc((size_t)o->count * sizeof(double), &sums));
    o->device_sums = sums;
    for (int i = 0; i < o->count; i++) {
        o->is_staging = o->is_staging || is_staged(o, &o->ranges[i]);
        largest = o->ranges[i].count > largest ? o->ranges[i].count : largest;
    }
    o->piece = largest < PIECE ? largest : PIECE;
    for (int i = 0; i < 2; i++)
        HY3_TRY(device->alloc_host((size_t)o->piece * sizeof(float), &o->host[i]));
    if (o->is_staging)
        HY3_TRY(open_stages(o));
    return HY3_OK;
}

hy3_status hy3_optimizer_create(const struct hy3_backend *backend,
                                const struct hy3_optimizer_options *options,
                                const struct hy3_range *ranges, int count,
                                struct hy3_optimizer **out)
{
    hy3_status status = HY3_OK;
    struct hy3_optimizer *o = NULL;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&o, 1, sizeof *o));
    o->backend = o->updater = backend;
    o->options = *options;
    if (options->placement.host && backend->on_host)
        o->updater = backend->on_host;
    HY3_TRY_DONE(copy_ranges(o, ranges, count));
    HY3_TRY_DONE(allocate(o));
    *out = HY3_TAKE(o);
done:
    hy3_optimizer_free(o);
    return status;
}

void hy3_optimizer_free(struct hy3_optimizer *o)
{
    const struct hy3_device *device;
    size_t low;

    if (!o)
        return;
    device = &o->backend->device;
    (void)device->synchronize(NULL); /* copies of get and put */
    close_stages(o);
    low = o->count > 0 ? (size_t)o->low_at[o->count] : 0;
    hy3_moments_close(&o->moments);
    hy3_placement_free(device, &o->options.placement, low * sizeof *o->low, o->low);
    for (int i = 0; i < 2; i++)
        device->free_host(o->host[i]);
    device->free(o->device_sums);
    device->free_host(o->host_sums);
    hy3_free(o->ranges);
    hy3_free(o->low_at);
    hy3_free(o);
}

size_t hy3_optimizer_bytes(const struct hy3_optimizer *o)
{
    return hy3_moments_bytes(&o->moments) + (size_t)o->low_at[o->count] * sizeof *o->low;
}

hy3_status hy3_optimizer_square_sums(struct hy3_optimizer *o, struct hy3_stream *stream,
                                     const double **sums)
{
    const struct hy3_backend *b = o->backend;

    *sums = o->host_sums;
    for (int i = 0; i < o->count; i++) {
        const struct hy3_range *range = &o->ranges[i];

        HY3_TRY(b->kernels.square_sum(stream,
                                      &(struct hy3_square_sum){.n = range->norm.count,
                                                               .dtype = HY3_FP32,
                                                               .x = range->grad + range->norm.first,
                                                               .sum = o->device_sums + i}));
    }
    HY3_TRY(b->device.copy(stream, o->host_sums, o->device_sums,
                           (size_t)o->count * sizeof *o->host_sums));
    return b->device.synchronize(stream);
}

/* The update of a step, all but its elements. */
static struct hy3_adamw update_of(const struct hy3_optimizer *o, const struct hy3_range *range,
                                  int64_t step, double learning_rate, double grad_scale)
{
    return (struct hy3_adamw){.step = step,
                              .lr = learning_rate * range->rate,
                              .beta1 = o->options.beta1,
                              .beta2 = o->options.beta2,
                              .eps = o->options.eps,
                              .decay = range->decay ? o->options.weight_decay : 0,
                              .grad_scale = grad_scale,
                              .dtype = range->dtype,
                              .seed = o->options.seed};
}

static int16_t *low_at(const struct hy3_optimizer *o, int range, int64_t first)
{
    return o->low + o->low_at[range] + hy3_moments_lead(&o->ranges[range]) + first;
}

/* Where the state of a range's element `first` lies. */
static void set_state(const struct hy3_optimizer *o, int range, int64_t first, struct hy3_adamw *a)
{
    hy3_moments_set(&o->moments, range, first, a);
    a->low = is_split(&o->ranges[range]) ? low_at(o, range, first) : NULL;
}

static char *weight_at(const struct hy3_optimizer *o, const struct hy3_range *range, int64_t first)
{
    return (char *)range->weight + (size_t)first * weight_size(range);
}

/* Starts to copy a piece of a range to a stage. */
static hy3_status copy_in(struct hy3_optimizer *o, const struct hy3_range *range, int64_t first,
                          struct stage *s)
{
    const struct hy3_device *device = &o->backend->device;
    size_t n = (size_t)hy3_moments_piece(range, first, o->piece);

    if (is_weight_staged(o, range))
        HY3_TRY(
            device->copy(s->stream, s->weight, weight_at(o, range, first), n * weight_size(range)));
    return device->copy(s->stream, s->grad, range->grad + first, n * sizeof(float));
}

/* Updates the piece in a stage, and starts to copy the weight back. */
static hy3_status update_piece(struct hy3_optimizer *o, int index, int64_t first, struct stage *s,
                               struct hy3_adamw *a)
{
    const struct hy3_device *device = &o->backend->device;
    const struct hy3_range *range = &o->ranges[index];
    bool is_here = o->updater == o->backend;

    a->n = hy3_moments_piece(range, first, o->piece);
    a->weight = is_weight_staged(o, range) ? s->weight : weight_at(o, range, first);
    a->grad = s->grad;
    set_state(o, index, first, a);
    if (!is_here) /* it does not know the stream */
        HY3_TRY(device->synchronize(s->stream));
    HY3_TRY(o->updater->kernels.adamw(is_here ? s->stream : NULL, a));
    if (is_weight_staged(o, range))
        HY3_TRY(device->copy(s->stream, weight_at(o, range, first), s->weight,
                             (size_t)a->n * weight_size(range)));
    return HY3_OK;
}

/* Piece by piece; the next one is copied while one is updated. */
static hy3_status update_staged(struct hy3_optimizer *o, int index, struct hy3_adamw *a)
{
    const struct hy3_range *range = &o->ranges[index];
    int turn = 0;

    HY3_TRY(copy_in(o, range, 0, &o->stages[turn]));
    for (int64_t first = 0, end; first < range->count; first = end) {
        int next = (turn + 1) % STAGES;

        end = first + hy3_moments_piece(range, first, o->piece);
        if (end < range->count)
            HY3_TRY(copy_in(o, range, end, &o->stages[next]));
        HY3_TRY(update_piece(o, index, first, &o->stages[turn], a));
        turn = next;
    }
    return HY3_OK;
}

/* The stages wait for the stream (begin), or the stream for the stages. */
static hy3_status order_stages(struct hy3_optimizer *o, struct hy3_stream *stream, bool begin)
{
    const struct hy3_device *device = &o->backend->device;

    if (!o->is_staging)
        return HY3_OK;
    if (begin)
        HY3_TRY(device->event_record(o->begun, stream));
    for (int i = 0; i < STAGES; i++) {
        struct stage *s = &o->stages[i];

        if (begin) {
            HY3_TRY(device->event_wait(o->begun, s->stream));
            continue;
        }
        HY3_TRY(device->event_record(s->done, s->stream));
        HY3_TRY(device->event_wait(s->done, stream));
    }
    return HY3_OK;
}

hy3_status hy3_optimizer_ready(struct hy3_optimizer *o, struct hy3_stream *stream)
{
    if (!o->is_ready)
        HY3_TRY(order_stages(o, stream, true));
    o->is_ready = true;
    return HY3_OK;
}

hy3_status hy3_optimizer_step(struct hy3_optimizer *o, struct hy3_stream *stream, int64_t step,
                              double learning_rate, double grad_scale)
{
    hy3_moments_updated(&o->moments);
    HY3_TRY(hy3_optimizer_ready(o, stream));
    o->is_ready = false;
    for (int i = 0; i < o->count; i++) {
        const struct hy3_range *range = &o->ranges[i];
        struct hy3_adamw a = update_of(o, range, step, learning_rate, grad_scale);

        if (is_staged(o, range)) {
            HY3_TRY(update_staged(o, i, &a));
            continue;
        }
        a.n = range->count;
        a.weight = range->weight;
        a.grad = range->grad;
        set_state(o, i, 0, &a);
        HY3_TRY(o->updater->kernels.adamw(stream, &a));
    }
    return order_stages(o, stream, false);
}

/* A piece of a split master to or from its two halves. */
static hy3_status copy_split(const struct hy3_optimizer *o, int range, struct hy3_span piece,
                             float *values, bool put)
{
    const struct hy3_device *device = &o->backend->device;
    size_t bytes = (size_t)piece.count * sizeof(hy3_bf16);
    hy3_bf16 *high = o->host[0], *weight = (hy3_bf16 *)o->ranges[range].weight + piece.first;
    int16_t *low = o->host[1], *kept = low_at(o, range, piece.first);

    if (put) {
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < piece.count; i++)
            high[i] = hy3_split(values[i], &low[i]);
    }
    HY3_TRY(device->copy(NULL, put ? weight : high, put ? high : weight, bytes));
    HY3_TRY(device->copy(NULL, put ? kept : low, put ? low : kept, bytes));
    HY3_TRY(device->synchronize(NULL));
    if (!put) {
#pragma omp parallel for schedule(static)
        for (int64_t i = 0; i < piece.count; i++)
            values[i] = hy3_join(high[i], low[i]);
    }
    return HY3_OK;
}

/* By all threads: this may be the first touch of a checkpoint's copy. */
static void copy_floats(float *to, const float *from, int64_t count)
{
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < count; i++)
        to[i] = from[i];
}

/* A piece of a master that is its weight. */
static hy3_status copy_plain(const struct hy3_optimizer *o, float *kept, int64_t count,
                             float *values, bool put)
{
    const struct hy3_device *device = &o->backend->device;
    size_t bytes = (size_t)count * sizeof *values;

    if (put)
        copy_floats(o->host[0], values, count);
    HY3_TRY(device->copy(NULL, put ? kept : o->host[0], put ? o->host[0] : kept, bytes));
    HY3_TRY(device->synchronize(NULL));
    if (!put)
        copy_floats(values, o->host[0], count);
    return HY3_OK;
}

static hy3_status copy_master(const struct hy3_optimizer *o, int range, struct hy3_span piece,
                              float *values, bool put)
{
    if (is_split(&o->ranges[range]))
        return copy_split(o, range, piece, values, put);
    return copy_plain(o, (float *)o->ranges[range].weight + piece.first, piece.count, values, put);
}

hy3_status hy3_optimizer_put(struct hy3_optimizer *o, enum hy3_field field, int range,
                             struct hy3_span span, const float *values)
{
    HY3_ASSERT(range < o->count && span.first >= 0 && hy3_span_end(span) <= o->ranges[range].count);
    for (int64_t i = 0; i < span.count; i += o->piece) {
        struct hy3_span piece = hy3_span_piece(span, i, o->piece);

        if (field == HY3_MASTER)
            HY3_TRY(copy_master(o, range, piece, (float *)(uintptr_t)values + i, true));
        else
            HY3_TRY(hy3_moments_put(&o->moments, field == HY3_ADAM_M, range, piece, values + i,
                                    o->host));
    }
    return HY3_OK;
}

hy3_status hy3_optimizer_get(const struct hy3_optimizer *o, enum hy3_field field, int range,
                             struct hy3_span span, float *values)
{
    HY3_ASSERT(range < o->count && span.first >= 0 && hy3_span_end(span) <= o->ranges[range].count);
    for (int64_t i = 0; i < span.count; i += o->piece) {
        struct hy3_span piece = hy3_span_piece(span, i, o->piece);

        if (field == HY3_MASTER)
            HY3_TRY(copy_master(o, range, piece, values + i, false));
        else
            HY3_TRY(hy3_moments_get(&o->moments, field == HY3_ADAM_M, range, piece, values + i,
                                    o->host));
    }
    return HY3_OK;
}

double hy3_clip_factor(double norm, double max_norm)
{
    double factor = max_norm > 0 ? max_norm / (norm + 1e-6) : 1;

    return factor < 1 ? factor : 1;
}
