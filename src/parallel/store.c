/* SPDX-License-Identifier: Apache-2.0 */
/* store.c - units in memory: whole or as slices, gathered and reduced. */
#include "parallel/store.h"

#include "base/memory.h"
#include "comm/agree.h"
#include "parallel/sums.h"
#include "parallel/unit.h"

struct hy3_store {
    const struct hy3_backend *backend;
    const struct hy3_layout *layout;
    const struct hy3_params *params;
    struct hy3_store_options options;
    struct unit *units;
    struct hy3_stream *from_host; /* copies of offloaded weights, concurrent with computation */
    struct hy3_event *begun;
    float *buffers; /* [params->buffer_count] */
    struct hy3_pool pool;
    struct hy3_sums sums;
    const int *order;
    int order_count, position;
    struct hy3_store_memory memory;
};

static struct unit *unit_at(const struct hy3_store *store, int index)
{
    HY3_ASSERT(index >= 0 && index < store->params->units);
    return &store->units[index];
}

/* Where its weights are, and whether only this rank's slice of them: what is in host memory is
 * brought like a slice also where the group is of one. owed: [2] of dense units and of experts,
 * which are each spread over the layers. */
static void choose_placement(const struct hy3_store *store, int index, double owed[2])
{
    const struct hy3_store_options *o = &store->options;
    const struct hy3_unit *unit = &store->params->unit[index];
    struct unit *u = &store->units[index];

    if (o->zero_stage < 3 || (unit->expert && o->whole_experts) || unit->count <= o->persistence)
        return;
    u->placement = hy3_offloading_next(&o->offload, (size_t)u->slice * weight_size(u),
                                       &owed[unit->expert ? 1 : 0]);
    u->divides_weight = u->group->size > 1 || u->placement.host;
}

/* Of the gradient in a reduce-scatter. */
static hy3_dtype sum_dtype(const struct hy3_store *store, int unit)
{
    return store->params->unit[unit].wide ? HY3_FP32 : store->options.grad_dtype;
}

static void choose_division(const struct hy3_store *store, int index)
{
    const struct hy3_store_options *o = &store->options;
    const struct hy3_unit *unit = &store->params->unit[index];
    struct unit *u = &store->units[index];
    int64_t count = u->packed ? hy3_packed_bytes(u->packed) : unit->count;
    int64_t blocks = (count + HY3_PARAM_ALIGN - 1) / HY3_PARAM_ALIGN;

    u->group = unit->expert ? &store->layout->replicas : &store->layout->zero;
    u->peers = unit->expert ? &store->layout->replica_peers : &store->layout->peers;
    u->dtype = u->packed ? HY3_FP8 : unit->wide ? HY3_FP32 : o->dtype;
    u->slice = (blocks + u->group->size - 1) / u->group->size * HY3_PARAM_ALIGN;
    u->divides_update = o->zero_stage >= 1 && u->group->size > 1;
    u->divides_grad = o->zero_stage >= 2 && u->group->size > 1;
}

static hy3_status open_unit(struct hy3_store *store, int index, double owed[2])
{
    const struct hy3_device *device = &store->backend->device;
    const struct hy3_unit *unit = &store->params->unit[index];
    struct unit *u = &store->units[index];
    size_t bytes;
    void *memory = NULL;

    if (store->options.packs && hy3_packed_is_for(store->params, index)) {
        HY3_TRY(hy3_packed_open(store->backend, store->params, index, store->options.dtype,
                                &u->packed));
        store->memory.weights += hy3_packed_scale_bytes(u->packed);
    }
    choose_division(store, index);
    choose_placement(store, index, owed);
    bytes = (size_t)(u->divides_weight ? u->slice : padded(u)) * weight_size(u);
    HY3_TRY(hy3_placement_alloc(device, &u->placement, bytes, &u->kept));
    store->memory.weights += bytes;
    if (u->placement.host) {
        store->memory.host += bytes;
        HY3_TRY(device->event_create(&u->copied));
    }
    if (!u->divides_weight)
        *arrived(u) = u->kept;
    if (!store->options.with_grads || unit->grad_count == 0)
        return HY3_OK;
    u->grad_from = u->divides_update ? 0 : unit->grad_first;
    u->grad_bytes = sizeof(float) * (size_t)(u->divides_grad     ? u->slice
                                             : u->divides_update ? padded(u)
                                                                 : unit->grad_count);
    HY3_TRY(device->alloc(u->grad_bytes, &memory));
    u->grad = memory;
    store->memory.grads += u->grad_bytes;
    return HY3_OK;
}

hy3_status hy3_store_open(const struct hy3_backend *backend, const struct hy3_layout *layout,
                          const struct hy3_params *params, const struct hy3_store_options *options,
                          struct hy3_store **out)
{
    hy3_status status = HY3_OK;
    struct hy3_store *store = NULL;
    void *buffers = NULL;
    double owed[2] = {0};

    *out = NULL;
    HY3_ASSERT(options->zero_stage > 0 || layout->peers.size * layout->replica_peers.size == 1);
    HY3_TRY_DONE(hy3_alloc(&store, 1, sizeof *store));
    *store = (struct hy3_store){
        .backend = backend, .layout = layout, .params = params, .options = *options};
    store->pool.device = &backend->device;
    store->sums = (struct hy3_sums){.backend = backend, .pool = &store->pool};
    HY3_TRY_DONE(hy3_alloc(&store->units, (size_t)params->units, sizeof *store->units));
    HY3_TRY_DONE(backend->device.alloc((size_t)params->buffer_count * sizeof(float), &buffers));
    store->buffers = buffers;
    store->memory.weights += (size_t)params->buffer_count * sizeof(float);
    if (options->offload.ratio > 0) {
        HY3_TRY_DONE(backend->device.stream_create(&store->from_host));
        HY3_TRY_DONE(backend->device.event_create(&store->begun));
    }
    for (int i = 0; i < params->units; i++)
        HY3_TRY_DONE(open_unit(store, i, owed));
done:
    status = hy3_agree(layout->world.comm, status, "allocating the model");
    if (status == HY3_OK)
        *out = store;
    else
        hy3_store_close(store);
    return status;
}

const struct hy3_backend *hy3_store_backend(const struct hy3_store *store)
{
    return store->backend;
}

const struct hy3_params *hy3_store_params(const struct hy3_store *store)
{
    return store->params;
}

const struct hy3_layout *hy3_store_layout(const struct hy3_store *store)
{
    return store->layout;
}

hy3_dtype hy3_store_dtype(const struct hy3_store *store)
{
    return store->options.dtype;
}

struct hy3_store_memory hy3_store_memory(const struct hy3_store *store)
{
    struct hy3_store_memory memory = store->memory;

    memory.gathered = store->pool.bytes;
    return memory;
}

void hy3_store_schedule(struct hy3_store *store, const int *order, int count)
{
    store->order = order;
    store->order_count = count;
    store->position = 0;
}

/* Copies the slice to its place in the gathered unit; *on: the stream of the copy. */
static hy3_status bring_slice(struct hy3_store *store, struct hy3_stream *stream, struct unit *u,
                              struct hy3_stream **on)
{
    const struct hy3_device *device = &store->backend->device;
    size_t bytes = (size_t)u->slice * weight_size(u);

    HY3_TRY(hy3_pool_take(&store->pool, bytes * (size_t)u->group->size, arrived(u)));
    if (u->placement.host) { /* after the computation that used the buffer before */
        *on = store->from_host;
        HY3_TRY(device->event_record(store->begun, stream));
        HY3_TRY(device->event_wait(store->begun, *on));
    }
    HY3_TRY(device->copy(*on, *arrived(u) + bytes * (size_t)u->group->rank, u->kept, bytes));
    if (u->placement.host)
        HY3_TRY(device->event_record(u->copied, *on));
    u->arriving = u->placement.host;
    return HY3_OK;
}

/* Starts the gather of a unit that is neither whole nor arriving. */
static hy3_status begin_gather(struct hy3_store *store, struct hy3_stream *stream, int index)
{
    struct unit *u = &store->units[index];
    struct hy3_stream *on = stream;

    if (u->arriving || ((u->whole || u->image) && !u->stale))
        return HY3_OK;
    if (u->divides_weight && !u->whole)
        HY3_TRY(bring_slice(store, stream, u, &on));
    u->stale = false;
    if (u->group->size == 1)
        return HY3_OK;
    HY3_TRY(store->backend->collectives.all_gather(on, u->group, *arrived(u), u->slice, u->dtype,
                                                   &u->gather));
    u->arriving = true;
    return HY3_OK;
}

/* The stream waits until the unit is whole. */
static hy3_status finish_gather(struct hy3_store *store, struct hy3_stream *stream, struct unit *u)
{
    u->arriving = false;
    if (u->group->size == 1)
        return store->backend->device.event_wait(u->copied, stream);
    return store->backend->collectives.finish(stream, &u->gather, "gathering weights");
}

/* Makes of a packed unit what kernels read, which is needed only now. */
static hy3_status expand(struct hy3_store *store, struct hy3_stream *stream, int index)
{
    struct unit *u = &store->units[index];
    size_t bytes = (size_t)store->params->unit[index].count * hy3_dtype_size(store->options.dtype);

    HY3_TRY(hy3_pool_take(&store->pool, bytes, &u->whole));
    HY3_TRY(hy3_packed_expand(u->packed, stream, u->image, u->whole));
    if (!u->divides_weight)
        return HY3_OK;
    hy3_pool_give(&store->pool, u->image);
    u->image = NULL;
    return HY3_OK;
}

/* Starts the gathers of the next units in the schedule: those of this layer and of the next one,
 * so that weights travel while a whole layer computes, and more as far as `prefetch` goes. */
static hy3_status prefetch_next(struct hy3_store *store, struct hy3_stream *stream)
{
    const struct hy3_unit *units = store->params->unit;
    int now = units[store->order[store->position - 1]].layer, next = now;
    int64_t ahead = 0;

    for (int i = store->position; store->options.prefetch > 0 && i < store->order_count; i++) {
        int layer = units[store->order[i]].layer;

        if (next == now)
            next = layer;
        if (layer != now && layer != next && ahead >= store->options.prefetch)
            break;
        HY3_TRY(begin_gather(store, stream, store->order[i]));
        if (store->units[store->order[i]].arriving)
            ahead += units[store->order[i]].count;
    }
    return HY3_OK;
}

hy3_status hy3_store_gather(struct hy3_store *store, struct hy3_stream *stream, int unit)
{
    struct unit *u = unit_at(store, unit);

    HY3_TRY(begin_gather(store, stream, unit));
    if (store->order_count > 0) {
        HY3_ASSERT(store->position < store->order_count && store->order[store->position] == unit);
        store->position++;
        HY3_TRY(prefetch_next(store, stream));
    }
    if (u->arriving)
        HY3_TRY(finish_gather(store, stream, u));
    return u->packed && !u->whole ? expand(store, stream, unit) : HY3_OK;
}

/* Whether the schedule returns to the unit soon enough to keep it. */
static bool is_used_soon(const struct hy3_store *store, int unit)
{
    int64_t distance = 0;

    for (int i = store->position; i < store->order_count; i++) {
        if (store->order[i] == unit)
            return true;
        distance += store->params->unit[store->order[i]].count;
        if (distance > store->options.reuse)
            return false;
    }
    return false;
}

void hy3_store_release(struct hy3_store *store, int unit)
{
    struct unit *u = unit_at(store, unit);

    HY3_ASSERT(u->whole);
    if (u->divides_weight ? is_used_soon(store, unit) : !u->packed)
        return; /* what is expanded of a whole image is nothing to gather */
    hy3_pool_give(&store->pool, u->whole);
    u->whole = NULL;
}

const void *hy3_store_weight(const struct hy3_store *store, const struct hy3_param *param)
{
    const struct unit *u;

    if (param->unit < 0)
        return store->buffers + param->offset;
    u = &store->units[param->unit];
    if (!u->whole || u->arriving || u->stale)
        HY3_BUG("'%s' is used while its unit is not gathered", param->name);
    return u->whole +
           (size_t)param->offset * hy3_dtype_size(u->packed ? store->options.dtype : u->dtype);
}

hy3_status hy3_store_open_grads(struct hy3_store *store, struct hy3_stream *stream, int unit)
{
    struct unit *u = unit_at(store, unit);
    size_t bytes = (size_t)padded(u) * sizeof(float);

    if (!u->grad || !u->divides_grad)
        return HY3_OK;
    HY3_ASSERT(!u->open);
    HY3_TRY(hy3_pool_take(&store->pool, bytes, &u->open));
    return store->backend->device.zero(stream, u->open, bytes);
}

float *hy3_store_grad(const struct hy3_store *store, const struct hy3_param *param)
{
    const struct unit *u;

    if (param->unit < 0 || !param->trainable)
        return NULL;
    u = &store->units[param->unit];
    if (!u->grad)
        return NULL;
    if (u->divides_grad)
        return u->open ? u->open + param->offset : NULL;
    return u->grad + param->offset - u->grad_from;
}

hy3_status hy3_store_zero_grads(struct hy3_store *store, struct hy3_stream *stream)
{
    for (int i = 0; i < store->params->units; i++)
        if (store->units[i].grad)
            HY3_TRY(store->backend->device.zero(stream, store->units[i].grad,
                                                store->units[i].grad_bytes));
    return HY3_OK;
}

static hy3_status begin_sum(struct hy3_store *store, struct hy3_stream *stream, int unit)
{
    struct unit *u = &store->units[unit];
    const struct hy3_scatter scatter = {.group = u->group,
                                        .slice = u->slice,
                                        .dtype = sum_dtype(store, unit),
                                        .grad = u->divides_grad ? u->open : u->grad,
                                        .is_lent = u->divides_grad,
                                        .to = u->grad + (u->divides_grad ? 0 : slice_of(u).first),
                                        .add = u->divides_grad};

    u->open = NULL;
    return hy3_sums_scatter(&store->sums, stream, &scatter);
}

hy3_status hy3_store_reduce(struct hy3_store *store, struct hy3_stream *stream, int unit, bool last)
{
    struct unit *u = &store->units[unit];
    const struct hy3_group *all = u->group->size > 1 ? u->group : u->peers;

    if (!u->grad || all->size == 1 || (!u->divides_grad && !last))
        return HY3_OK;
    if (!u->divides_update)
        return hy3_sums_total(&store->sums, stream, all, u->grad,
                              store->params->unit[unit].grad_count);
    u->unsummed = last && u->peers->size > 1;
    return begin_sum(store, stream, unit);
}

/* Together at the end of a step: a slice is small, and one by one they would queue behind weights
 * that travel. */
hy3_status hy3_store_finish(struct hy3_store *store, struct hy3_stream *stream)
{
    HY3_TRY(hy3_sums_finish(&store->sums, stream));
    for (int i = 0; i < store->params->units; i++) {
        struct unit *u = &store->units[i];
        int64_t at = u->divides_grad ? 0 : slice_of(u).first;

        if (u->unsummed)
            HY3_TRY(hy3_sums_total(&store->sums, stream, u->peers, u->grad + at, u->slice));
        u->unsummed = false;
    }
    return hy3_sums_finish(&store->sums, stream);
}

/* Transfers must complete before their memory is freed. */
static void finish_transfers(struct hy3_store *store)
{
    for (int i = 0; i < store->params->units; i++)
        if (store->units[i].arriving && store->units[i].group->size > 1)
            store->backend->collectives.finish(NULL, &store->units[i].gather, "closing the model");
    (void)hy3_sums_finish(&store->sums, NULL);
}

void hy3_store_close(struct hy3_store *store)
{
    const struct hy3_device *device;

    if (!store)
        return;
    device = &store->backend->device;
    if (store->units)
        finish_transfers(store);
    for (int i = 0; store->units && i < store->params->units; i++) {
        struct unit *u = &store->units[i];

        hy3_placement_free(device, &u->placement, (size_t)u->slice * weight_size(u), u->kept);
        device->free(u->grad);
        hy3_packed_close(u->packed);
        if (u->copied)
            device->event_free(u->copied);
    }
    if (store->begun)
        device->event_free(store->begun);
    if (store->from_host)
        device->stream_free(store->from_host);
    hy3_pool_close(&store->pool);
    device->free(store->buffers);
    hy3_free(store->units);
    hy3_free(store);
}

struct hy3_owned hy3_store_owned(const struct hy3_store *store, const struct hy3_param *param)
{
    const struct unit *u = unit_at(store, param->unit);
    struct hy3_owned own = {.span = hy3_param_held(param)};
    int64_t at, slice_first = slice_of(u).first;

    HY3_ASSERT(!u->packed); /* frozen */
    if (u->divides_update)
        own.span = held_in(u, slice_of(u), param);
    if (own.span.count == 0) /* its place may lie outside the slice */
        return own;
    at = param->offset + own.span.first - param->first;
    own.dtype = u->dtype;
    own.on_host = u->placement.host;
    own.weight = u->kept + (size_t)(at - (u->divides_weight ? slice_first : 0)) * weight_size(u);
    if (u->grad && param->trainable)
        own.grad = u->grad + at - (u->divides_grad ? slice_first : u->grad_from);
    return own;
}

void hy3_store_updated(struct hy3_store *store)
{
    for (int i = 0; i < store->params->units; i++) {
        struct unit *u = &store->units[i];

        if (!u->grad || !u->divides_update)
            continue;
        HY3_ASSERT(!u->arriving);
        u->stale = !u->divides_weight;
    }
}

struct hy3_span hy3_store_kept(const struct hy3_store *store, const struct hy3_param *param)
{
    if (param->unit >= 0 && store->units[param->unit].divides_weight)
        return held_in(&store->units[param->unit], slice_of(&store->units[param->unit]), param);
    return hy3_param_held(param);
}

struct hy3_span hy3_store_share(const struct hy3_store *store, const struct hy3_param *param)
{
    if (param->unit >= 0)
        return held_in(&store->units[param->unit], share_of(&store->units[param->unit]), param);
    return hy3_span_share(param->held, store->layout->world.rank, store->layout->world.size);
}

char *hy3_store_address(const struct hy3_store *store, const struct hy3_param *param, int64_t i)
{
    struct hy3_packed_place place;
    const struct unit *u;
    int64_t at;

    i -= param->first;
    if (param->unit < 0)
        return (char *)(store->buffers + param->offset + i);
    u = &store->units[param->unit];
    place = place_in(u, param);
    at = place.offset + i * place.width - (u->divides_weight ? slice_of(u).first : 0);
    return u->kept + (size_t)at * weight_size(u);
}

struct hy3_packed *hy3_store_packed(const struct hy3_store *store, const struct hy3_param *param)
{
    return param->unit >= 0 && param->dims > 1 ? store->units[param->unit].packed : NULL;
}

hy3_dtype hy3_store_dtype_of(const struct hy3_store *store, const struct hy3_param *param)
{
    const struct unit *u;

    if (param->unit < 0)
        return HY3_FP32;
    u = &store->units[param->unit];
    return u->packed && param->dims == 1 ? store->options.dtype : u->dtype;
}

hy3_status hy3_store_share_scales(struct hy3_store *store)
{
    for (int i = 0; i < store->params->units; i++)
        if (store->units[i].packed && store->units[i].divides_weight)
            HY3_AGREE(store->layout->world.comm,
                      hy3_packed_share_scales(store->units[i].packed, store->units[i].group),
                      "sharing the scales");
    return HY3_OK;
}
