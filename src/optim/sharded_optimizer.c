/* SPDX-License-Identifier: Apache-2.0 */
/* sharded_optimizer.c - ranges from the store, the norm over the ranks, the update. */
#include "optim/sharded_optimizer.h"

#include "base/memory.h"
#include "comm/agree.h"

#include <math.h>

static void add_range(struct hy3_sharded_optimizer *l, int index)
{
    const struct hy3_param *p = &hy3_store_params(l->store)->params[index];
    struct hy3_range *r = &l->ranges[l->range_count];
    struct hy3_owned own;
    struct hy3_span norm;

    l->range_of[index] = -1;
    if (!p->trainable)
        return;
    own = hy3_store_owned(l->store, p);
    if (own.span.count == 0)
        return;
    norm = hy3_store_share(l->store, p);
    norm.first -= own.span.first;
    *r = (struct hy3_range){.name = p->name,
                            .weight = own.weight,
                            .on_host = own.on_host,
                            .grad = own.grad,
                            .count = own.span.count,
                            .decay = p->decay,
                            .norm = norm};
    l->spans[l->range_count] = own.span;
    l->range_of[index] = l->range_count++;
}

static hy3_status open_local(struct hy3_sharded_optimizer *l,
                             const struct hy3_optimizer_options *options)
{
    const struct hy3_params *params = hy3_store_params(l->store);
    size_t count = (size_t)params->count;

    HY3_TRY(hy3_alloc(&l->ranges, count, sizeof *l->ranges));
    HY3_TRY(hy3_alloc(&l->spans, count, sizeof *l->spans));
    HY3_TRY(hy3_alloc(&l->range_of, count, sizeof *l->range_of));
    for (int i = 0; i < params->count; i++)
        add_range(l, i);
    return hy3_optimizer_create(l->backend, options, l->ranges, l->range_count, &l->optimizer);
}

hy3_status hy3_sharded_optimizer_open(const struct hy3_backend *backend, struct hy3_store *store,
                                      const struct hy3_optimizer_options *options,
                                      struct hy3_sharded_optimizer *learner)
{
    *learner = (struct hy3_sharded_optimizer){.backend = backend, .store = store};
    return hy3_agree(hy3_store_layout(store)->world.comm, open_local(learner, options),
                     "allocating the optimizer");
}

void hy3_sharded_optimizer_close(struct hy3_sharded_optimizer *l)
{
    hy3_optimizer_free(l->optimizer);
    hy3_free(l->ranges);
    hy3_free(l->spans);
    hy3_free(l->range_of);
    *l = (struct hy3_sharded_optimizer){0};
}

hy3_status hy3_sharded_optimizer_step(struct hy3_sharded_optimizer *l, struct hy3_stream *stream,
                                      int64_t step, double labels, double max_norm,
                                      double learning_rate, double *norm)
{
    hy3_status status = HY3_OK;
    MPI_Comm comm = hy3_store_layout(l->store)->world.comm;
    double sum = 0;
    int bad = -1;

    status = hy3_optimizer_square_sum(l->optimizer, stream, &sum, &bad);
    if (status == HY3_OK && bad >= 0)
        status = hy3_fail(HY3_EDIVERGED, __FILE__, __LINE__,
                          "step %lld: the gradient of '%s' is not finite; no weight was changed by "
                          "this step. Lower learning_rate",
                          (long long)step, l->ranges[bad].name);
    HY3_AGREE(comm, status, "checking the gradients");
    hy3_allreduce_real(comm, &sum, 1, MPI_SUM, "summing the gradient norm");
    *norm = sqrt(sum) / labels;
    status = hy3_optimizer_step(l->optimizer, stream, step, learning_rate,
                                hy3_clip_factor(*norm, max_norm) / labels);
    if (status == HY3_OK)
        status = l->backend->device.synchronize(stream);
    HY3_AGREE(comm, status, "updating the weights");
    hy3_store_updated(l->store);
    return status;
}

/* The range of a tensor, or -1. *own: what it has of the span, in elements of the range; *skipped:
 * elements of the span before. */
static int find_range(const struct hy3_sharded_optimizer *l, const struct hy3_param *param,
                      struct hy3_span span, struct hy3_span *own, int64_t *skipped)
{
    int range = l->range_of[param - hy3_store_params(l->store)->params];

    if (range < 0)
        return -1;
    *own = hy3_span_intersect(l->spans[range], span);
    *skipped = own->first - span.first;
    own->first -= l->spans[range].first;
    return own->count > 0 ? range : -1;
}

hy3_status hy3_sharded_optimizer_put(struct hy3_sharded_optimizer *l,
                                     enum hy3_optimizer_field field, const struct hy3_param *param,
                                     struct hy3_span span, const float *values)
{
    struct hy3_span own;
    int64_t skipped;
    int range = find_range(l, param, span, &own, &skipped);

    if (range < 0)
        return HY3_OK;
    return hy3_optimizer_put(l->optimizer, field, range, own, values + skipped);
}

hy3_status hy3_sharded_optimizer_get(const struct hy3_sharded_optimizer *l,
                                     enum hy3_optimizer_field field, const struct hy3_param *param,
                                     struct hy3_span span, float *values)
{
    struct hy3_span own;
    int64_t skipped;
    int range = find_range(l, param, span, &own, &skipped);

    if (range < 0)
        return HY3_OK;
    return hy3_optimizer_get(l->optimizer, field, range, own, values + skipped);
}
