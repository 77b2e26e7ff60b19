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
    int64_t first, count;

    l->range_of[index] = -1;
    if (!p->trainable)
        return;
    own = hy3_store_owned(l->store, p);
    if (own.count == 0)
        return;
    hy3_store_share(l->store, p, &first, &count);
    *r = (struct hy3_range){.name = p->name,
                            .weight = own.weight,
                            .on_host = own.on_host,
                            .grad = own.grad,
                            .count = own.count,
                            .decay = p->decay,
                            .norm_first = first - own.first,
                            .norm_count = count};
    l->first[l->range_count] = own.first;
    l->range_of[index] = l->range_count++;
}

static hy3_status open_local(struct hy3_sharded_optimizer *l,
                             const struct hy3_optimizer_options *options)
{
    const struct hy3_params *params = hy3_store_params(l->store);
    size_t count = (size_t)params->count;

    HY3_TRY(hy3_alloc(&l->ranges, count, sizeof *l->ranges));
    HY3_TRY(hy3_alloc(&l->first, count, sizeof *l->first));
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
    hy3_free(l->first);
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

/* Cuts [*first, *first + *count) to what is owned; its range, or -1. *skipped: elements cut off in
 * front. */
static int clip(const struct hy3_sharded_optimizer *l, const struct hy3_param *param,
                int64_t *first, int64_t *count, int64_t *skipped)
{
    int range = l->range_of[param - hy3_store_params(l->store)->params];
    int64_t low, end = *first + *count, own_end;

    if (range < 0)
        return -1;
    own_end = l->first[range] + l->ranges[range].count;
    low = *first > l->first[range] ? *first : l->first[range];
    end = end < own_end ? end : own_end;
    *skipped = low - *first;
    *first = low - l->first[range];
    *count = end - low;
    return *count > 0 ? range : -1;
}

hy3_status hy3_sharded_optimizer_put(struct hy3_sharded_optimizer *l,
                                     enum hy3_optimizer_field field, const struct hy3_param *param,
                                     int64_t first, int64_t count, const float *values)
{
    int64_t skipped;
    int range = clip(l, param, &first, &count, &skipped);

    if (range < 0)
        return HY3_OK;
    return hy3_optimizer_put(l->optimizer, field, range, first, count, values + skipped);
}

hy3_status hy3_sharded_optimizer_get(const struct hy3_sharded_optimizer *l,
                                     enum hy3_optimizer_field field, const struct hy3_param *param,
                                     int64_t first, int64_t count, float *values)
{
    int64_t skipped;
    int range = clip(l, param, &first, &count, &skipped);

    if (range < 0)
        return HY3_OK;
    return hy3_optimizer_get(l->optimizer, field, range, first, count, values + skipped);
}
