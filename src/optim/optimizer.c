/* optimizer.c - AdamW state of this rank's ranges: three arrays, each with all ranges one after the other. */
#include "optim/optimizer.h"

#include "base/memory.h"

#include <math.h>

enum { PIECE = 1 << 20 }; /* elements that are brought to the state at a time, or read by a file */

struct hy3_optimizer {
    const struct hy3_backend *backend;
    const struct hy3_backend *updater; /* where the state lies in host memory: who computes there */
    struct hy3_optimizer_options options;
    struct hy3_range *ranges;
    int64_t *at; /* [count+1] place of each range in the arrays */
    int count;
    float *m, *v;                    /* placed */
    int16_t *low;                    /* placed; NULL: the weight is fp32 */
    double *device_sums, *host_sums; /* [count] sum of squares of each range */
    void *stage_weight,
        *stage_grad; /* [PIECE] beside the state; NULL: nothing has to be brought there */
};

static bool is_split(const struct hy3_optimizer *o)
{
    return o->options.dtype == HY3_BF16;
}

static size_t weight_size(const struct hy3_optimizer *o)
{
    return hy3_dtype_size(o->options.dtype);
}

/* Whether a range's weight or gradient lies elsewhere than the state. */
static bool is_staged(const struct hy3_optimizer *o, const struct hy3_range *range)
{
    return o->options.placement.host || range->on_host;
}

static hy3_status copy_ranges(struct hy3_optimizer *o, const struct hy3_range *ranges, int count)
{
    hy3_status status = HY3_OK;

    HY3_TRY(hy3_alloc(&o->ranges, (size_t)count, sizeof *o->ranges));
    HY3_TRY(hy3_alloc(&o->at, (size_t)count + 1, sizeof *o->at));
    HY3_TRY(hy3_alloc(&o->host_sums, (size_t)count, sizeof *o->host_sums));
    for (int i = 0; i < count; i++) {
        o->ranges[i] = ranges[i];
        o->at[i + 1] = o->at[i] + (ranges[i].count + 15) / 16 * 16; /* 64 bytes */
    }
    o->count = count;
done:
    return status;
}

static hy3_status allocate(struct hy3_optimizer *o)
{
    hy3_status status = HY3_OK;
    const struct hy3_device *device = &o->backend->device;
    const struct hy3_placement *placement = &o->options.placement;
    size_t total = (size_t)o->at[o->count];
    void *sums = NULL;
    bool staged = false;

    HY3_TRY(hy3_placement_alloc(device, placement, total * sizeof *o->m, &o->m));
    HY3_TRY(hy3_placement_alloc(device, placement, total * sizeof *o->v, &o->v));
    if (is_split(o))
        HY3_TRY(hy3_placement_alloc(device, placement, total * sizeof *o->low, &o->low));
    HY3_TRY(device->alloc((size_t)o->count * sizeof(double), &sums));
    o->device_sums = sums;
    for (int i = 0; i < o->count; i++)
        staged = staged || is_staged(o, &o->ranges[i]);
    if (staged) {
        const struct hy3_placement beside = {.host = placement->host};

        HY3_TRY(hy3_placement_alloc(device, &beside, PIECE * sizeof(float), &o->stage_weight));
        HY3_TRY(hy3_placement_alloc(device, &beside, PIECE * sizeof(float), &o->stage_grad));
    }
done:
    return status;
}

hy3_status hy3_optimizer_create(const struct hy3_backend *backend,
                                const struct hy3_optimizer_options *options,
                                const struct hy3_range *ranges, int count,
                                struct hy3_optimizer **out)
{
    hy3_status status = HY3_OK;
    struct hy3_optimizer *o = NULL;

    *out = NULL;
    HY3_TRY(hy3_alloc(&o, 1, sizeof *o));
    o->backend = o->updater = backend;
    o->options = *options;
    if (options->placement.host && backend->on_host)
        o->updater = backend->on_host;
    HY3_TRY(copy_ranges(o, ranges, count));
    HY3_TRY(allocate(o));
    *out = o;
    o = NULL;
done:
    hy3_optimizer_free(o);
    return status;
}

void hy3_optimizer_free(struct hy3_optimizer *o)
{
    const struct hy3_device *device;
    struct hy3_placement beside;
    size_t total;

    if (!o)
        return;
    device = &o->backend->device;
    beside = (struct hy3_placement){.host = o->options.placement.host};
    total = o->at && o->count > 0 ? (size_t)o->at[o->count] : 0;
    hy3_placement_free(device, &o->options.placement, total * sizeof *o->m, o->m);
    hy3_placement_free(device, &o->options.placement, total * sizeof *o->v, o->v);
    hy3_placement_free(device, &o->options.placement, total * sizeof *o->low, o->low);
    hy3_placement_free(device, &beside, 0, o->stage_weight);
    hy3_placement_free(device, &beside, 0, o->stage_grad);
    device->free(o->device_sums);
    hy3_free(o->host_sums);
    hy3_free(o->ranges);
    hy3_free(o->at);
    hy3_free(o);
}

size_t hy3_optimizer_bytes(const struct hy3_optimizer *o)
{
    return (size_t)o->at[o->count] *
           (sizeof *o->m + sizeof *o->v + (is_split(o) ? sizeof *o->low : 0));
}

hy3_status hy3_optimizer_square_sum(struct hy3_optimizer *o, struct hy3_stream *stream, double *sum,
                                    int *bad)
{
    hy3_status status = HY3_OK;
    const struct hy3_backend *b = o->backend;

    *sum = 0;
    *bad = -1;
    for (int i = 0; i < o->count; i++) {
        const struct hy3_range *range = &o->ranges[i];

        HY3_TRY(b->kernels.square_sum(stream,
                                      &(struct hy3_square_sum){.n = range->norm_count,
                                                               .dtype = HY3_FP32,
                                                               .x = range->grad + range->norm_first,
                                                               .sum = o->device_sums + i}));
    }
    HY3_TRY(b->device.copy(stream, o->host_sums, o->device_sums,
                           (size_t)o->count * sizeof *o->host_sums));
    HY3_TRY(b->device.synchronize(stream));
    for (int i = 0; i < o->count; i++) {
        *sum += o->host_sums[i];
        if (*bad < 0 && !isfinite(o->host_sums[i]))
            *bad = i;
    }
done:
    return status;
}

/* The update of a step, to be completed by whoever knows the elements. */
static struct hy3_adamw update_of(const struct hy3_optimizer *o, const struct hy3_range *range,
                                  int64_t step, double learning_rate, double grad_scale)
{
    return (struct hy3_adamw){.step = step,
                              .lr = learning_rate,
                              .beta1 = o->options.beta1,
                              .beta2 = o->options.beta2,
                              .eps = o->options.eps,
                              .decay = range->decay ? o->options.weight_decay : 0,
                              .grad_scale = grad_scale,
                              .dtype = o->options.dtype};
}

static void set_state(const struct hy3_optimizer *o, int64_t at, struct hy3_adamw *a)
{
    a->m = o->m + at;
    a->v = o->v + at;
    a->low = o->low ? o->low + at : NULL;
}

/* Brings weight and gradient to the state piece by piece, and the weight back. */
static hy3_status update_staged(struct hy3_optimizer *o, struct hy3_stream *stream, int index,
                                struct hy3_adamw *a)
{
    hy3_status status = HY3_OK;
    const struct hy3_device *device = &o->backend->device;
    const struct hy3_range *range = &o->ranges[index];
    size_t size = weight_size(o);

    a->weight = o->stage_weight;
    a->grad = o->stage_grad;
    for (int64_t first = 0; first < range->count; first += PIECE) {
        char *weight = (char *)range->weight + (size_t)first * size;

        a->n = range->count - first < PIECE ? range->count - first : PIECE;
        set_state(o, o->at[index] + first, a);
        HY3_TRY(device->copy(stream, o->stage_weight, weight, (size_t)a->n * size));
        HY3_TRY(
            device->copy(stream, o->stage_grad, range->grad + first, (size_t)a->n * sizeof(float)));
        if (o->updater != o->backend) /* it does not know the stream */
            HY3_TRY(device->synchronize(stream));
        HY3_TRY(o->updater->kernels.adamw(o->updater == o->backend ? stream : NULL, a));
        HY3_TRY(device->copy(stream, weight, o->stage_weight, (size_t)a->n * size));
        HY3_TRY(device->synchronize(stream));
    }
done:
    return status;
}

hy3_status hy3_optimizer_step(struct hy3_optimizer *o, struct hy3_stream *stream, int64_t step,
                              double learning_rate, double grad_scale)
{
    hy3_status status = HY3_OK;

    for (int i = 0; i < o->count; i++) {
        const struct hy3_range *range = &o->ranges[i];
        struct hy3_adamw a = update_of(o, range, step, learning_rate, grad_scale);

        if (is_staged(o, range)) {
            HY3_TRY(update_staged(o, stream, i, &a));
            continue;
        }
        a.n = range->count;
        a.weight = range->weight;
        a.grad = range->grad;
        set_state(o, o->at[i], &a);
        HY3_TRY(o->updater->kernels.adamw(stream, &a));
    }
done:
    return status;
}

static float *moment(const struct hy3_optimizer *o, enum hy3_optimizer_field field, int64_t at)
{
    return (field == HY3_ADAM_M ? o->m : o->v) + at;
}

/* A piece of a split master to or from its two halves. */
static hy3_status copy_split(const struct hy3_optimizer *o, int range, int64_t first, int64_t count,
                             float *values, bool put)
{
    hy3_status status = HY3_OK;
    const struct hy3_device *device = &o->backend->device;
    size_t bytes = (size_t)count * sizeof(hy3_bf16);
    hy3_bf16 *high = NULL, *weight = (hy3_bf16 *)o->ranges[range].weight + first;
    int16_t *low = NULL, *kept = o->low + o->at[range] + first;

    HY3_TRY(hy3_alloc(&high, (size_t)count, sizeof *high));
    HY3_TRY(hy3_alloc(&low, (size_t)count, sizeof *low));
    for (int64_t i = 0; put && i < count; i++)
        high[i] = hy3_split(values[i], &low[i]);
    HY3_TRY(device->copy(NULL, put ? weight : high, put ? high : weight, bytes));
    HY3_TRY(device->copy(NULL, put ? kept : low, put ? low : kept, bytes));
    HY3_TRY(device->synchronize(NULL));
    for (int64_t i = 0; !put && i < count; i++)
        values[i] = hy3_join(high[i], low[i]);
done:
    hy3_free(high);
    hy3_free(low);
    return status;
}

static hy3_status copy_field(const struct hy3_optimizer *o, enum hy3_optimizer_field field,
                             int range, int64_t first, int64_t count, float *values, bool put)
{
    hy3_status status = HY3_OK;
    const struct hy3_device *device = &o->backend->device;

    HY3_ASSERT(range < o->count && first >= 0 && first + count <= o->ranges[range].count);
    for (int64_t i = 0; i < count; i += PIECE) {
        int64_t n = count - i < PIECE ? count - i : PIECE;
        float *kept;

        if (field == HY3_MASTER && is_split(o)) {
            HY3_TRY(copy_split(o, range, first + i, n, values + i, put));
            continue;
        }
        kept = field == HY3_MASTER ? (float *)o->ranges[range].weight + first + i
                                   : moment(o, field, o->at[range] + first + i);
        HY3_TRY(device->copy(NULL, put ? kept : values + i, put ? values + i : kept,
                             (size_t)n * sizeof *values));
        HY3_TRY(device->synchronize(NULL));
    }
done:
    return status;
}

hy3_status hy3_optimizer_put(struct hy3_optimizer *o, enum hy3_optimizer_field field, int range,
                             int64_t first, int64_t count, const float *values)
{
    return copy_field(o, field, range, first, count, (float *)(uintptr_t)values, true);
}

hy3_status hy3_optimizer_get(const struct hy3_optimizer *o, enum hy3_optimizer_field field,
                             int range, int64_t first, int64_t count, float *values)
{
    return copy_field(o, field, range, first, count, values, false);
}

double hy3_clip_factor(double norm, double max_norm)
{
    double factor = max_norm > 0 ? max_norm / (norm + 1e-6) : 1;

    return factor < 1 ? factor : 1;
}
