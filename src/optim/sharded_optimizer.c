/* SPDX-License-Identifier: Apache-2.0 */
/* sharded_optimizer.c - ranges from the store, the norm over the ranks, the update. */
#include "optim/sharded_optimizer.h"

#include "base/memory.h"
#include "comm/agree.h"

#include <math.h>

static void add_range(struct hy3_sharded_optimizer *o, int index,
                      const struct hy3_optimizer_options *options)
{
    const struct hy3_param *p = &hy3_store_params(o->store)->params[index];
    struct hy3_range *r = &o->ranges[o->range_count];
    struct hy3_owned own;
    struct hy3_span norm;

    o->range_of[index] = -1;
    if (!p->trainable)
        return;
    own = hy3_store_owned(o->store, p);
    if (own.span.count == 0)
        return;
    norm = hy3_store_share(o->store, p);
    norm.first = norm.count > 0 ? norm.first - own.span.first : 0;
    *r = (struct hy3_range){.name = p->name,
                            .weight = own.weight,
                            .dtype = own.dtype,
                            .on_host = own.on_host,
                            .grad = own.grad,
                            .count = own.span.count,
                            .decay = p->decay,
                            .rate = p->part == HY3_LORA_B ? options->b_rate : 1,
                            .norm = norm,
                            .moments =
                                p->count < HY3_MOMENTS_LEAST ? HY3_MOMENTS_FP32 : options->moments,
                            .tensor = index,
                            .first = own.span.first};
    o->spans[o->range_count] = own.span;
    o->range_of[index] = o->range_count++;
}

static hy3_status open_local(struct hy3_sharded_optimizer *o,
                             const struct hy3_optimizer_options *options)
{
    const struct hy3_params *params = hy3_store_params(o->store);
    size_t count = (size_t)params->count;

    HY3_TRY(hy3_alloc(&o->ranges, count, sizeof *o->ranges));
    HY3_TRY(hy3_alloc(&o->spans, count, sizeof *o->spans));
    HY3_TRY(hy3_alloc(&o->range_of, count, sizeof *o->range_of));
    for (int i = 0; i < params->count; i++)
        add_range(o, i, options);
    return hy3_optimizer_create(o->backend, options, o->ranges, o->range_count, &o->optimizer);
}

hy3_status hy3_sharded_optimizer_open(const struct hy3_backend *backend, struct hy3_store *store,
                                      const struct hy3_optimizer_options *options,
                                      struct hy3_sharded_optimizer *o)
{
    *o = (struct hy3_sharded_optimizer){.backend = backend, .store = store};
    return hy3_agree(hy3_store_layout(store)->world.comm, open_local(o, options),
                     "allocating the optimizer");
}

void hy3_sharded_optimizer_close(struct hy3_sharded_optimizer *o)
{
    hy3_optimizer_free(o->optimizer);
    hy3_free(o->ranges);
    hy3_free(o->spans);
    hy3_free(o->range_of);
    *o = (struct hy3_sharded_optimizer){0};
}

hy3_status hy3_sharded_optimizer_step(struct hy3_sharded_optimizer *o, struct hy3_stream *stream,
                                      int64_t step, double weight, double max_norm,
                                      double learning_rate, double *norm)
{
    hy3_status status = HY3_OK;
    MPI_Comm comm = hy3_store_layout(o->store)->world.comm;
    double sum = 0;
    int bad = -1;

    status = hy3_optimizer_square_sum(o->optimizer, stream, &sum, &bad);
    if (status == HY3_OK && bad >= 0)
        status = hy3_fail(HY3_EDIVERGED, __FILE__, __LINE__,
                          "step %lld: the gradient of '%s' is not finite; no weight was changed by "
                          "this step. Lower learning_rate",
                          (long long)step, o->ranges[bad].name);
    HY3_AGREE(comm, status, "checking the gradients");
    hy3_allreduce_real(comm, &sum, 1, MPI_SUM, "summing the gradient norm");
    *norm = sqrt(sum) / weight;
    status = hy3_optimizer_step(o->optimizer, stream, step, learning_rate,
                                hy3_clip_factor(*norm, max_norm) / weight);
    if (status == HY3_OK)
        status = o->backend->device.synchronize(stream);
    HY3_AGREE(comm, status, "updating the weights");
    hy3_store_updated(o->store);
    return status;
}

static int range_of(const struct hy3_sharded_optimizer *o, const struct hy3_param *param)
{
    return o->range_of[param - hy3_store_params(o->store)->params];
}

static struct hy3_span share(void *of, const struct hy3_param *param)
{
    const struct hy3_sharded_optimizer *o = of;

    return hy3_store_share(o->store, param);
}

static struct hy3_span kept(void *of, const struct hy3_param *param)
{
    const struct hy3_sharded_optimizer *o = of;
    int range = range_of(o, param);

    return range < 0 ? (struct hy3_span){0, 0} : o->spans[range];
}

static hy3_status put(void *of, enum hy3_field field, const struct hy3_param *param,
                      struct hy3_span span, const float *in)
{
    const struct hy3_sharded_optimizer *o = of;
    struct hy3_span own = hy3_span_intersect(kept(of, param), span);
    int range = range_of(o, param);

    if (field == HY3_MASTER && own.count < span.count)
        HY3_TRY(hy3_store_put(o->store, param, span, in, HY3_FP32));
    if (own.count == 0)
        return HY3_OK;
    in += own.first - span.first;
    own.first -= o->spans[range].first;
    return hy3_optimizer_put(o->optimizer, field, range, own, in);
}

static hy3_status get(void *of, enum hy3_field field, const struct hy3_param *param,
                      struct hy3_span span, float *out)
{
    const struct hy3_sharded_optimizer *o = of;
    struct hy3_span own = hy3_span_intersect(kept(of, param), span);
    int range = range_of(o, param);

    if (own.count == 0)
        return HY3_OK;
    out += own.first - span.first;
    own.first -= o->spans[range].first;
    return hy3_optimizer_get(o->optimizer, field, range, own, out);
}

struct hy3_values hy3_sharded_optimizer_values(struct hy3_sharded_optimizer *o)
{
    return (struct hy3_values){.of = o, .get = get, .put = put, .share = share, .kept = kept};
}
