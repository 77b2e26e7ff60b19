/* SPDX-License-Identifier: Apache-2.0 */
/* sharded_optimizer.c - ranges from the store, the norm over the ranks, the update. */
#include "optim/sharded_optimizer.h"

#include "base/memory.h"
#include "comm/agree.h"

#include <math.h>

enum { PARTS = 2 };

static struct hy3_range range_of(const struct hy3_sharded_optimizer *o, int index,
                                 const struct hy3_owned *own,
                                 const struct hy3_optimizer_options *options)
{
    const struct hy3_param *p = &hy3_store_params(o->store)->params[index];
    struct hy3_span norm = hy3_store_share(o->store, p);

    norm.first = norm.count > 0 ? norm.first - own->span.first : 0;
    return (struct hy3_range){.name = p->name,
                              .weight = own->weight,
                              .dtype = own->dtype,
                              .on_host = own->on_host,
                              .grad = own->grad,
                              .count = own->span.count,
                              .decay = p->decay,
                              .rate = p->part == HY3_LORA_B ? options->b_rate : 1,
                              .norm = norm,
                              .moments = hy3_moment_format(options->moments, p->count),
                              .tensor = index,
                              .first = own->span.first};
}

static void add_range(struct hy3_sharded_optimizer *o, int index,
                      const struct hy3_optimizer_options *options,
                      const struct hy3_offloading *offload, double *owed)
{
    const struct hy3_param *p = &hy3_store_params(o->store)->params[index];
    struct hy3_owned own;
    int part;

    o->owned_of[index] = -1;
    if (!p->trainable)
        return;
    own = hy3_store_owned(o->store, p);
    if (own.span.count == 0)
        return;
    part = hy3_offloading_next(offload, (size_t)own.span.count * sizeof(float), owed).host ? 1 : 0;
    o->owned_of[index] = o->owned_count;
    o->owned[o->owned_count++] =
        (struct hy3_owned_range){.span = own.span, .part = part, .index = o->counts[part]};
    o->ranges[part][o->counts[part]++] = range_of(o, index, &own, options);
}

static hy3_status open_local(struct hy3_sharded_optimizer *o,
                             const struct hy3_optimizer_options *options,
                             const struct hy3_offloading *offload)
{
    const struct hy3_params *params = hy3_store_params(o->store);
    size_t count = (size_t)params->count;
    double owed = 0;

    HY3_TRY(hy3_alloc(&o->owned, count, sizeof *o->owned));
    HY3_TRY(hy3_alloc(&o->owned_of, count, sizeof *o->owned_of));
    for (int part = 0; part < PARTS; part++)
        HY3_TRY(hy3_alloc(&o->ranges[part], count, sizeof *o->ranges[part]));
    for (int i = 0; i < params->count; i++)
        add_range(o, i, options, offload, &owed);
    for (int part = 0; part < PARTS; part++) {
        struct hy3_optimizer_options of_part = *options;

        of_part.placement =
            (struct hy3_placement){.host = part == 1, .directory = offload->directory};
        if (o->counts[part] > 0)
            HY3_TRY(hy3_optimizer_create(o->backend, &of_part, o->ranges[part], o->counts[part],
                                         &o->parts[part]));
    }
    return HY3_OK;
}

hy3_status hy3_sharded_optimizer_open(const struct hy3_backend *backend, struct hy3_store *store,
                                      const struct hy3_optimizer_options *options,
                                      const struct hy3_offloading *offload,
                                      struct hy3_sharded_optimizer *o)
{
    *o = (struct hy3_sharded_optimizer){.backend = backend, .store = store};
    return hy3_agree(hy3_store_layout(store)->world.comm, open_local(o, options, offload),
                     "allocating the optimizer");
}

void hy3_sharded_optimizer_close(struct hy3_sharded_optimizer *o)
{
    for (int part = 0; part < PARTS; part++) {
        hy3_optimizer_free(o->parts[part]);
        hy3_free(o->ranges[part]);
    }
    hy3_free(o->owned);
    hy3_free(o->owned_of);
    *o = (struct hy3_sharded_optimizer){0};
}

size_t hy3_sharded_optimizer_bytes(const struct hy3_sharded_optimizer *o)
{
    size_t bytes = 0;

    for (int part = 0; part < PARTS; part++)
        bytes += o->parts[part] ? hy3_optimizer_bytes(o->parts[part]) : 0;
    return bytes;
}

/* Over the ranges in the order of the tensors, so that it does not depend on where their state is.
 * *bad: the first range whose sum is not finite; NULL: none. */
static hy3_status square_sum(struct hy3_sharded_optimizer *o, struct hy3_stream *stream,
                             double *sum, const struct hy3_range **bad)
{
    const double *sums[PARTS] = {NULL};

    *sum = 0;
    *bad = NULL;
    for (int part = 0; part < PARTS; part++)
        if (o->parts[part])
            HY3_TRY(hy3_optimizer_square_sums(o->parts[part], stream, &sums[part]));
    for (int i = 0; i < o->owned_count; i++) {
        const struct hy3_owned_range *r = &o->owned[i];

        *sum += sums[r->part][r->index];
        if (!*bad && !isfinite(sums[r->part][r->index]))
            *bad = &o->ranges[r->part][r->index];
    }
    return HY3_OK;
}

/* The device works on its part while the host does on the other. */
static hy3_status update(struct hy3_sharded_optimizer *o, struct hy3_stream *stream, int64_t step,
                         double learning_rate, double scale)
{
    for (int part = 0; part < PARTS; part++)
        if (o->parts[part])
            HY3_TRY(hy3_optimizer_ready(o->parts[part], stream));
    for (int part = 0; part < PARTS; part++)
        if (o->parts[part])
            HY3_TRY(hy3_optimizer_step(o->parts[part], stream, step, learning_rate, scale));
    return o->backend->device.synchronize(stream);
}

hy3_status hy3_sharded_optimizer_step(struct hy3_sharded_optimizer *o, struct hy3_stream *stream,
                                      int64_t step, double weight, double max_norm,
                                      double learning_rate, double *norm)
{
    hy3_status status = HY3_OK;
    MPI_Comm comm = hy3_store_layout(o->store)->world.comm;
    const struct hy3_range *bad;
    double sum;

    status = square_sum(o, stream, &sum, &bad);
    if (status == HY3_OK && bad)
        status = hy3_fail(HY3_EDIVERGED, __FILE__, __LINE__,
                          "step %lld: the gradient of '%s' is not finite; no weight was changed by "
                          "this step. Lower learning_rate",
                          (long long)step, bad->name);
    HY3_AGREE(comm, status, "checking the gradients");
    hy3_allreduce_real(comm, &sum, 1, MPI_SUM, "summing the gradient norm");
    *norm = sqrt(sum) / weight;
    status = update(o, stream, step, learning_rate, hy3_clip_factor(*norm, max_norm) / weight);
    HY3_AGREE(comm, status, "updating the weights");
    hy3_store_updated(o->store);
    return status;
}

/* NULL: nothing of it is updated here. */
static const struct hy3_owned_range *owned_of(const struct hy3_sharded_optimizer *o,
                                              const struct hy3_param *param)
{
    int owned = o->owned_of[param - hy3_store_params(o->store)->params];

    return owned < 0 ? NULL : &o->owned[owned];
}

static struct hy3_span share(void *of, const struct hy3_param *param)
{
    const struct hy3_sharded_optimizer *o = of;

    return hy3_store_share(o->store, param);
}

static struct hy3_span kept(void *of, const struct hy3_param *param)
{
    const struct hy3_owned_range *owned = owned_of(of, param);

    return owned ? owned->span : (struct hy3_span){0, 0};
}

static hy3_status put(void *of, enum hy3_field field, const struct hy3_param *param,
                      struct hy3_span span, const float *in)
{
    const struct hy3_sharded_optimizer *o = of;
    struct hy3_span own = hy3_span_intersect(kept(of, param), span);
    const struct hy3_owned_range *owned = owned_of(o, param);

    if (field == HY3_MASTER && own.count < span.count)
        HY3_TRY(hy3_store_put(o->store, param, span, in, HY3_FP32));
    if (own.count == 0)
        return HY3_OK;
    in += own.first - span.first;
    own.first -= owned->span.first;
    return hy3_optimizer_put(o->parts[owned->part], field, owned->index, own, in);
}

static hy3_status get(void *of, enum hy3_field field, const struct hy3_param *param,
                      struct hy3_span span, float *out)
{
    const struct hy3_sharded_optimizer *o = of;
    struct hy3_span own = hy3_span_intersect(kept(of, param), span);
    const struct hy3_owned_range *owned = owned_of(o, param);

    if (own.count == 0)
        return HY3_OK;
    out += own.first - span.first;
    own.first -= owned->span.first;
    return hy3_optimizer_get(o->parts[owned->part], field, owned->index, own, out);
}

struct hy3_values hy3_sharded_optimizer_values(struct hy3_sharded_optimizer *o)
{
    return (struct hy3_values){.of = o, .get = get, .put = put, .share = share, .kept = kept};
}
