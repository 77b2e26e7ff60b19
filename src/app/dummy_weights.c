/* SPDX-License-Identifier: Apache-2.0 */
/* dummy_weights.c - noise on zeros, row by row of a piece. */
#include "app/dummy_weights.h"

#include "base/memory.h"
#include "comm/stop.h"

enum { COLUMNS = 4096, ROWS = 2048 }; /* of the noise; COLUMNS never changes: values depend on it */

static const float half_width = 0.0346410162f; /* sqrt(3) 0.02 */

/* A piece of a tensor. */
struct work {
    const struct hy3_backend *backend;
    struct hy3_store *store;
    uint64_t seed;
    void *piece;         /* [ROWS,COLUMNS] device */
    uint64_t *host_keys; /* [ROWS] host, pinned */
    void *keys, *scale;  /* [ROWS] device */
    void *codes;         /* [ROWS,COLUMNS] host: of what is put in 8 bits; NULL: not needed */
};

static hy3_status open_work(struct work *w)
{
    const struct hy3_device *device = &w->backend->device;
    hy3_status status = HY3_OK;
    float *scales = NULL;

    HY3_TRY_DONE(device->alloc((size_t)ROWS * COLUMNS * sizeof(float), &w->piece));
    HY3_TRY_DONE(device->alloc(ROWS * sizeof(uint64_t), &w->keys));
    HY3_TRY_DONE(device->alloc(ROWS * sizeof(float), &w->scale));
    HY3_TRY_DONE(hy3_device_host_array(device, ROWS, sizeof *w->host_keys, &w->host_keys));
    HY3_TRY_DONE(hy3_device_host_array(device, ROWS, sizeof *scales, &scales));
    for (int i = 0; i < ROWS; i++)
        scales[i] = half_width;
    HY3_TRY_DONE(device->copy(NULL, w->scale, scales, ROWS * sizeof *scales));
    HY3_TRY_DONE(device->synchronize(NULL));
done:
    device->free_host(scales);
    return status;
}

static void close_work(struct work *w)
{
    const struct hy3_device *device = &w->backend->device;

    device->free(w->piece);
    device->free(w->keys);
    device->free(w->scale);
    device->free_host(w->host_keys);
    hy3_free(w->codes);
}

/* Rows of COLUMNS elements of tensor `number`, from row `first` of the flattened tensor on. */
static hy3_status draw(struct work *w, int number, int64_t first, int64_t rows, hy3_dtype dtype)
{
    const struct hy3_device *device = &w->backend->device;

    for (int64_t i = 0; i < rows; i++)
        w->host_keys[i] = ((uint64_t)number << 40) + (uint64_t)(first + i);
    HY3_TRY(device->copy(NULL, w->keys, w->host_keys, (size_t)rows * sizeof *w->host_keys));
    HY3_TRY(device->zero(NULL, w->piece, (size_t)(rows * COLUMNS) * hy3_dtype_size(dtype)));
    return w->backend->kernels.noise(NULL, &(struct hy3_noise){.N = rows,
                                                               .C = COLUMNS,
                                                               .seed = w->seed,
                                                               .keys = w->keys,
                                                               .scale = w->scale,
                                                               .dtype = dtype,
                                                               .y = w->piece});
}

/* One scale a matrix, with which the noise reaches up to the largest code. */
static hy3_status begin_codes(struct work *w, const struct hy3_param *param)
{
    hy3_status status = HY3_OK;
    const struct hy3_matrices all = hy3_packed_matrices(param);
    struct hy3_matrix_scales scales = {
        .matrices = {0, all.count}, .rows = all.rows, .columns = all.columns, .stride = 1};
    float *values = NULL;

    if (!w->codes)
        HY3_TRY_DONE(hy3_alloc(&w->codes, (size_t)ROWS * COLUMNS, sizeof(float)));
    HY3_TRY_DONE(hy3_alloc(&values, (size_t)all.count, sizeof *values));
    for (int64_t i = 0; i < all.count; i++)
        values[i] = half_width / 448;
    scales.values = values;
    HY3_TRY_DONE(hy3_packed_put_scales(hy3_store_packed(w->store, param), param, &scales));
done:
    hy3_free(values);
    return status;
}

/* Puts the rows that were drawn; in 8 bits they are rounded on the host. */
static hy3_status put(struct work *w, const struct hy3_param *param, struct hy3_span span,
                      hy3_dtype dtype)
{
    const struct hy3_device *device = &w->backend->device;

    if (!hy3_store_packed(w->store, param))
        return hy3_store_put(w->store, param, span, w->piece, dtype);
    HY3_TRY(device->copy(NULL, w->codes, w->piece, (size_t)span.count * hy3_dtype_size(dtype)));
    HY3_TRY(device->synchronize(NULL));
    return hy3_store_put(w->store, param, span, w->codes, dtype);
}

static hy3_status fill_matrix(struct work *w, const struct hy3_param *param, int number)
{
    hy3_dtype dtype = hy3_store_dtype_of(w->store, param);
    struct hy3_span kept = hy3_store_kept(w->store, param);
    int64_t end = (hy3_span_end(kept) + COLUMNS - 1) / COLUMNS, rows;

    if (hy3_store_packed(w->store, param)) {
        dtype = hy3_store_dtype(w->store);
        HY3_TRY(begin_codes(w, param));
    }
    for (int64_t row = kept.first / COLUMNS; kept.count > 0 && row < end; row += rows) {
        rows = end - row < ROWS ? end - row : ROWS;
        HY3_TRY(hy3_stop_check("making the weights"));
        HY3_TRY(draw(w, number, row, rows, dtype));
        HY3_TRY(put(w, param, (struct hy3_span){row * COLUMNS, rows * COLUMNS}, dtype));
    }
    return HY3_OK;
}

/* Vectors are small. */
static hy3_status fill_vector(struct work *w, const struct hy3_param *param)
{
    hy3_status status = HY3_OK;
    float *ones = NULL;

    HY3_TRY_DONE(hy3_alloc(&ones, (size_t)param->count, sizeof *ones));
    for (int64_t i = 0; i < param->count; i++)
        ones[i] = 1;
    HY3_TRY_DONE(
        hy3_store_put(w->store, param, (struct hy3_span){0, param->count}, ones, HY3_FP32));
done:
    hy3_free(ones);
    return status;
}

hy3_status hy3_dummy_weights(const struct hy3_backend *backend, struct hy3_store *store,
                             uint64_t seed)
{
    hy3_status status = HY3_OK;
    const struct hy3_params *params = hy3_store_params(store);
    struct work w = {.backend = backend, .store = store, .seed = seed};

    HY3_TRY_DONE(open_work(&w));
    for (int i = 0; i < params->base_count; i++) {
        const struct hy3_param *p = &params->params[i];

        if (p->unit >= 0)
            HY3_TRY_DONE(p->dims == 1 ? fill_vector(&w, p) : fill_matrix(&w, p, i));
    }
done:
    close_work(&w);
    return status;
}
