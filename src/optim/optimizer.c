/* optimizer.c - AdamW state of this rank's ranges. */
#include "optim/optimizer.h"

#include "base/memory.h"

#include <math.h>

struct state {
    struct hy3_range range;
    float *master; /* NULL: the weight is fp32 */
    float *m, *v;
};

struct hy3_optimizer {
    const struct hy3_backend *backend;
    struct hy3_adamw_options options;
    hy3_dtype dtype;
    struct state *states;
    int count;
    double *device_sums, *host_sums; /* [count] sum of squares of each range */
};

static hy3_status alloc_floats(const struct hy3_device *device, int64_t count, float **out)
{
    void *memory = NULL;
    hy3_status status = device->alloc((size_t)count * sizeof(float), &memory);

    *out = memory;
    return status;
}

static hy3_status create_state(struct hy3_optimizer *o, const struct hy3_range *range,
                               struct state *s)
{
    hy3_status status = HY3_OK;
    const struct hy3_backend *b = o->backend;

    s->range = *range;
    HY3_TRY(alloc_floats(&b->device, range->count, &s->m));
    HY3_TRY(alloc_floats(&b->device, range->count, &s->v));
    if (o->dtype == HY3_FP32)
        goto done;
    HY3_TRY(alloc_floats(&b->device, range->count, &s->master));
    HY3_TRY(b->kernels.cast(NULL, &(struct hy3_cast){.n = range->count,
                                                     .x_dtype = o->dtype,
                                                     .y_dtype = HY3_FP32,
                                                     .x = range->weight,
                                                     .y = s->master}));
done:
    return status;
}

hy3_status hy3_optimizer_create(const struct hy3_backend *backend, hy3_dtype dtype,
                                const struct hy3_adamw_options *options,
                                const struct hy3_range *ranges, int count,
                                struct hy3_optimizer **out)
{
    hy3_status status = HY3_OK;
    struct hy3_optimizer *o = NULL;
    void *sums = NULL;

    *out = NULL;
    HY3_TRY(hy3_alloc(&o, 1, sizeof *o));
    o->backend = backend;
    o->options = *options;
    o->dtype = dtype;
    HY3_TRY(hy3_alloc(&o->states, (size_t)count, sizeof *o->states));
    HY3_TRY(hy3_alloc(&o->host_sums, (size_t)count, sizeof *o->host_sums));
    HY3_TRY(backend->device.alloc((size_t)count * sizeof(double), &sums));
    o->device_sums = sums;
    o->count = count; /* the states are zero so far: freeing half of them made is fine */
    for (int i = 0; i < count; i++)
        HY3_TRY(create_state(o, &ranges[i], &o->states[i]));
    *out = o;
    o = NULL;
done:
    hy3_optimizer_free(o);
    return status;
}

void hy3_optimizer_free(struct hy3_optimizer *o)
{
    if (!o)
        return;
    for (int i = 0; i < o->count; i++) {
        o->backend->device.free(o->states[i].master);
        o->backend->device.free(o->states[i].m);
        o->backend->device.free(o->states[i].v);
    }
    o->backend->device.free(o->device_sums);
    hy3_free(o->host_sums);
    hy3_free(o->states);
    hy3_free(o);
}

hy3_status hy3_optimizer_square_sum(struct hy3_optimizer *o, struct hy3_stream *stream, double *sum,
                                    int *bad)
{
    hy3_status status = HY3_OK;
    const struct hy3_backend *b = o->backend;

    *sum = 0;
    *bad = -1;
    for (int i = 0; i < o->count; i++)
        HY3_TRY(
            b->kernels.square_sum(stream, &(struct hy3_square_sum){.n = o->states[i].range.count,
                                                                   .dtype = HY3_FP32,
                                                                   .x = o->states[i].range.grad,
                                                                   .sum = o->device_sums + i}));
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

hy3_status hy3_optimizer_step(struct hy3_optimizer *o, struct hy3_stream *stream, int64_t step,
                              double learning_rate, double grad_scale)
{
    hy3_status status = HY3_OK;

    for (int i = 0; i < o->count; i++) {
        const struct state *s = &o->states[i];

        HY3_TRY(o->backend->kernels.adamw(
            stream, &(struct hy3_adamw){.n = s->range.count,
                                        .step = step,
                                        .lr = learning_rate,
                                        .beta1 = o->options.beta1,
                                        .beta2 = o->options.beta2,
                                        .eps = o->options.eps,
                                        .decay = s->range.decay ? o->options.weight_decay : 0,
                                        .grad_scale = grad_scale,
                                        .dtype = o->dtype,
                                        .weight = s->range.weight,
                                        .master = s->master,
                                        .m = s->m,
                                        .v = s->v,
                                        .grad = s->range.grad}));
    }
done:
    return status;
}

hy3_status hy3_optimizer_put_master(struct hy3_optimizer *o, int range, int64_t first,
                                    int64_t count, const float *values)
{
    hy3_status status = HY3_OK;
    const struct hy3_device *device = &o->backend->device;
    const struct state *s = &o->states[range];

    HY3_ASSERT(range < o->count && first >= 0 && first + count <= s->range.count);
    if (!s->master)
        return HY3_OK;
    HY3_TRY(device->copy(NULL, s->master + first, values, (size_t)count * sizeof *values));
    HY3_TRY(device->synchronize(NULL));
done:
    return status;
}

hy3_status hy3_optimizer_get_master(const struct hy3_optimizer *o, int range, int64_t first,
                                    int64_t count, float *values)
{
    hy3_status status = HY3_OK;
    const struct hy3_device *device = &o->backend->device;
    const struct state *s = &o->states[range];
    const float *from = s->master ? s->master : s->range.weight;

    HY3_ASSERT(range < o->count && first >= 0 && first + count <= s->range.count);
    HY3_TRY(device->copy(NULL, values, from + first, (size_t)count * sizeof *values));
    HY3_TRY(device->synchronize(NULL));
done:
    return status;
}

double hy3_clip_factor(double norm, double max_norm)
{
    double factor = max_norm > 0 ? max_norm / (norm + 1e-6) : 1;

    return factor < 1 ? factor : 1;
}
