/* store.c - units in device memory. Every unit is whole on every rank here (stage 0): its slice is all of it
 * and its gradient is all-reduced. */
#include "parallel/store.h"

#include "base/memory.h"
#include "comm/agree.h"
#include "comm/comm.h"

struct unit {
    void *weight; /* [count] compute precision */
    float *grad;  /* [grad_count], NULL: nothing in it is trained */
};

struct hy3_store {
    const struct hy3_backend *backend;
    const struct hy3_layout *layout;
    const struct hy3_params *params;
    hy3_dtype dtype;
    struct unit *units;
    float *buffers; /* [params->buffer_count] */
};

static hy3_status open_unit(struct hy3_store *store, int index, bool with_grads)
{
    hy3_status status = HY3_OK;
    const struct hy3_device *device = &store->backend->device;
    const struct hy3_unit *unit = &store->params->unit[index];
    void *grad = NULL;

    HY3_TRY(device->alloc((size_t)unit->count * hy3_dtype_size(store->dtype),
                          &store->units[index].weight));
    if (with_grads && unit->grad_count > 0)
        HY3_TRY(device->alloc((size_t)unit->grad_count * sizeof(float), &grad));
    store->units[index].grad = grad;
done:
    return status;
}

hy3_status hy3_store_open(const struct hy3_backend *backend, const struct hy3_layout *layout,
                          const struct hy3_params *params, hy3_dtype dtype, bool with_grads,
                          struct hy3_store **out)
{
    hy3_status status = HY3_OK;
    struct hy3_store *store = NULL;
    void *buffers = NULL;

    *out = NULL;
    HY3_TRY(hy3_alloc(&store, 1, sizeof *store));
    *store = (struct hy3_store){.backend = backend, .layout = layout, .params = params};
    store->dtype = dtype;
    HY3_TRY(hy3_alloc(&store->units, (size_t)params->units, sizeof *store->units));
    HY3_TRY(backend->device.alloc((size_t)params->buffer_count * sizeof(float), &buffers));
    store->buffers = buffers;
    for (int i = 0; i < params->units; i++)
        HY3_TRY(open_unit(store, i, with_grads));
done:
    status = hy3_agree(layout->world, status, "allocating the model");
    if (status == HY3_OK)
        *out = store;
    else
        hy3_store_close(store);
    return status;
}

void hy3_store_close(struct hy3_store *store)
{
    if (!store)
        return;
    for (int i = 0; store->units && i < store->params->units; i++) {
        store->backend->device.free(store->units[i].weight);
        store->backend->device.free(store->units[i].grad);
    }
    store->backend->device.free(store->buffers);
    hy3_free(store->units);
    hy3_free(store);
}

const struct hy3_params *hy3_store_params(const struct hy3_store *store)
{
    return store->params;
}

hy3_dtype hy3_store_dtype(const struct hy3_store *store)
{
    return store->dtype;
}

hy3_status hy3_store_gather(struct hy3_store *store, struct hy3_stream *stream, int unit)
{
    (void)stream;
    HY3_ASSERT(unit >= 0 && unit < store->params->units);
    return HY3_OK;
}

void hy3_store_release(struct hy3_store *store, int unit)
{
    HY3_ASSERT(unit >= 0 && unit < store->params->units);
}

/* Device address of the held part. */
static char *address(const struct hy3_store *store, const struct hy3_param *param)
{
    if (param->unit < 0)
        return (char *)(store->buffers + param->offset);
    return (char *)store->units[param->unit].weight +
           (size_t)param->offset * hy3_dtype_size(store->dtype);
}

const void *hy3_store_weight(const struct hy3_store *store, const struct hy3_param *param)
{
    return address(store, param);
}

float *hy3_store_grad(const struct hy3_store *store, const struct hy3_param *param)
{
    if (param->unit < 0 || !param->trainable || !store->units[param->unit].grad)
        return NULL;
    return store->units[param->unit].grad + param->offset -
           store->params->unit[param->unit].grad_first;
}

hy3_status hy3_store_zero_grads(struct hy3_store *store, struct hy3_stream *stream)
{
    hy3_status status = HY3_OK;

    for (int i = 0; i < store->params->units; i++)
        if (store->units[i].grad)
            HY3_TRY(store->backend->device.zero(stream, store->units[i].grad,
                                                (size_t)store->params->unit[i].grad_count *
                                                    sizeof(float)));
done:
    return status;
}

hy3_status hy3_store_reduce(struct hy3_store *store, struct hy3_stream *stream, int unit)
{
    const struct hy3_unit *u = &store->params->unit[unit];
    MPI_Comm comm = u->expert ? store->layout->replicas : store->layout->world;

    if (!store->units[unit].grad || hy3_size(comm) == 1)
        return HY3_OK;
    return store->backend->collectives.all_reduce(stream, comm, store->units[unit].grad,
                                                  u->grad_count, HY3_FP32, "summing gradients");
}

struct hy3_slice hy3_store_slice(const struct hy3_store *store, int unit)
{
    return (struct hy3_slice){.first = 0,
                              .count = store->params->unit[unit].count,
                              .weight = store->units[unit].weight,
                              .grad = store->units[unit].grad};
}

/* Cuts [*first, *first + *count) to what is held; the number of elements cut off in front. */
static int64_t clip(const struct hy3_param *param, int64_t *first, int64_t *count)
{
    int64_t low = *first > param->first ? *first : param->first;
    int64_t end = *first + *count, held_end = param->first + param->held;
    int64_t skipped = low - *first;

    end = end < held_end ? end : held_end;
    *first = low;
    *count = end > low ? end - low : 0;
    return skipped;
}

hy3_status hy3_store_put(struct hy3_store *store, const struct hy3_param *param, int64_t first,
                         int64_t count, const void *data, hy3_dtype dtype)
{
    hy3_status status = HY3_OK;
    hy3_dtype own = param->unit < 0 ? HY3_FP32 : store->dtype;
    int64_t skipped = clip(param, &first, &count);
    const char *from = (const char *)data + (size_t)skipped * hy3_dtype_size(dtype);
    char *converted = NULL, *to = address(store, param);

    to += (size_t)(first - param->first) * hy3_dtype_size(own);
    if (count == 0)
        return HY3_OK;
    if (dtype != own) {
        HY3_TRY(hy3_alloc(&converted, (size_t)count, hy3_dtype_size(own)));
        hy3_convert(from, dtype, converted, own, (size_t)count);
        from = converted;
    }
    HY3_TRY(store->backend->device.copy(NULL, to, from, (size_t)count * hy3_dtype_size(own)));
    HY3_TRY(store->backend->device.synchronize(NULL));
done:
    hy3_free(converted);
    return status;
}

hy3_status hy3_store_get(const struct hy3_store *store, const struct hy3_param *param,
                         int64_t first, int64_t count, float *data)
{
    hy3_status status = HY3_OK;
    hy3_dtype own = param->unit < 0 ? HY3_FP32 : store->dtype;
    char *raw = NULL;

    data += clip(param, &first, &count);
    if (count == 0)
        return HY3_OK;
    HY3_TRY(hy3_alloc(&raw, (size_t)count, hy3_dtype_size(own)));
    HY3_TRY(store->backend->device.copy(
        NULL, raw, address(store, param) + (size_t)(first - param->first) * hy3_dtype_size(own),
        (size_t)count * hy3_dtype_size(own)));
    HY3_TRY(store->backend->device.synchronize(NULL));
    hy3_convert(raw, own, data, HY3_FP32, (size_t)count);
done:
    hy3_free(raw);
    return status;
}

void hy3_store_share(const struct hy3_store *store, const struct hy3_param *param, int64_t *first,
                     int64_t *count)
{
    MPI_Comm comm = store->layout->world;
    int64_t rank = hy3_rank(comm), size = hy3_size(comm);

    if (param->held != param->count) { /* experts: shared out among the replicas */
        rank = hy3_rank(store->layout->replicas);
        size = hy3_size(store->layout->replicas);
    }
    *first = param->first + param->held / size * rank +
             (rank < param->held % size ? rank : param->held % size);
    *count = param->held / size + (rank < param->held % size);
}
