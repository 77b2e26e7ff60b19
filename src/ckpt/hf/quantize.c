/* SPDX-License-Identifier: Apache-2.0 */
/* quantize.c - some rows of blocks at a time: read, quantized on the device, put. */
#include "ckpt/hf/quantize.h"

#include "base/log.h"
#include "base/memory.h"
#include "ckpt/hf/scales.h"
#include "ckpt/hf/scan.h"
#include "comm/comm.h"
#include "comm/stop.h"

#include <math.h>

enum { ELEMENTS = 2 << 20 }; /* at a time, if that is not less than a row of blocks */

/* Some rows of a matrix of the tensor. */
struct rows {
    const struct hy3_shard *shard;
    const struct hy3_shard_tensor *tensor;
    const struct hy3_place *place;
    int64_t K, matrix;    /* of the tensor */
    struct hy3_span span; /* rows of the matrix */
    int64_t first;        /* element of the tensor */
};

static const struct hy3_device *device_of(const struct hy3_quantizer *q)
{
    return &hy3_store_backend(q->store)->device;
}

static hy3_status make_room(struct hy3_quantizer *q, size_t elements)
{
    const struct hy3_device *device = device_of(q);

    HY3_TRY(hy3_grow(&q->raw, &q->capacity, elements * sizeof(float), 1));
    HY3_TRY(hy3_grow(&q->seen, &q->seen_capacity, elements, sizeof *q->seen));
    HY3_TRY(hy3_grow(&q->kept, &q->kept_capacity, elements, sizeof *q->kept));
    if (elements <= q->on_device)
        return HY3_OK;
    device->free(q->x);
    device->free(q->codes);
    q->x = q->codes = NULL;
    q->on_device = 0;
    HY3_TRY(device->alloc(elements * sizeof(float), &q->x));
    HY3_TRY(device->alloc(elements, &q->codes));
    q->on_device = elements;
    return HY3_OK;
}

/* Adds what this rank counts of the rows. */
static hy3_status add_errors(struct hy3_quantizer *q, const struct rows *r, struct hy3_span span)
{
    const struct hy3_param *param = r->place->param;
    struct hy3_span share = hy3_span_intersect(hy3_store_share(q->store, param), span);
    double *sums = q->sums[param->kind], values = 0, errors = 0;
    const float *seen = q->seen + (share.first - span.first);

    if (share.count == 0)
        return HY3_OK;
    HY3_TRY(hy3_store_get(q->store, param, share, q->kept));
#pragma omp simd reduction(+ : values, errors)
    for (int64_t i = 0; i < share.count; i++) {
        double x = (double)seen[i], error = (double)q->kept[i] - x;

        values += x * x;
        errors += error * error;
    }
    sums[0] += values;
    sums[1] += errors;
    return HY3_OK;
}

static hy3_status put_rows(struct hy3_quantizer *q, const struct rows *r)
{
    const struct hy3_device *device = device_of(q);
    const struct hy3_param *param = r->place->param;
    int64_t count = r->span.count * r->K, size = (int64_t)hy3_dtype_size(r->tensor->dtype), bad;
    struct hy3_span span = {r->place->span.first + r->first, count};
    hy3_dtype dtype = r->tensor->dtype == HY3_BF16 ? HY3_BF16 : HY3_FP32;
    char *from = q->raw;

    HY3_TRY(hy3_stop_check("loading the weights"));
    HY3_TRY(hy3_shard_read_raw(r->shard, r->tensor, r->first * size, count * size, from));
    if ((bad = hy3_scan_not_finite(from, r->tensor->dtype, count)) >= 0)
        HY3_FAIL(HY3_EFORMAT,
                 "%s: element %lld of tensor '%s' is NaN or infinite; the file is damaged",
                 hy3_shard_path(r->shard), (long long)(r->first + bad), r->tensor->name);
    hy3_convert(from, r->tensor->dtype, q->seen, HY3_FP32, (size_t)count);
    HY3_TRY(device->copy(NULL, q->x, dtype == HY3_BF16 ? from : (const char *)q->seen,
                         (size_t)count * hy3_dtype_size(dtype)));
    HY3_TRY(hy3_packed_quantize(hy3_store_packed(q->store, param), param,
                                r->place->piece + r->matrix, r->span, q->x, dtype, q->codes));
    HY3_TRY(hy3_store_put(q->store, param, span, q->codes, HY3_FP8));
    return add_errors(q, r, span);
}

hy3_status hy3_quantize_tensor(struct hy3_quantizer *q, const struct hy3_shard *shard,
                               const struct hy3_shard_tensor *tensor, const struct hy3_place *place)
{
    const int64_t block = HY3_SCALE_BLOCK;
    const struct hy3_param *param = place->param;
    struct hy3_span kept = hy3_span_intersect(hy3_store_kept(q->store, param), place->span);
    struct hy3_matrix_scales scales = {.rows = block, .columns = block};
    struct rows r = {.shard = shard, .tensor = tensor, .place = place};
    struct hy3_scales m;
    int64_t most;

    if (!hy3_scales_matrices(place, &hy3_store_params(q->store)->shape, &m))
        return HY3_OK;
    q->used = true;
    scales.matrices = hy3_place_matrices(place, m.M);
    scales.stride = (m.N + block - 1) / block * ((m.K + block - 1) / block);
    HY3_TRY(hy3_packed_put_scales(hy3_store_packed(q->store, param), param, &scales));
    r.K = m.K;
    most = ELEMENTS / (block * m.K) > 1 ? ELEMENTS / (block * m.K) * block : block;
    HY3_TRY(make_room(q, (size_t)((most < m.N ? most : m.N) * m.K)));
    for (r.matrix = 0; r.matrix < m.M; r.matrix++) {
        int64_t begin = r.matrix * m.N * m.K;
        struct hy3_span part =
            hy3_span_intersect(kept, (struct hy3_span){place->span.first + begin, m.N * m.K});
        int64_t first = (part.first - place->span.first - begin) / m.K / block * block;
        int64_t end = (hy3_span_end(part) - place->span.first - begin + m.K - 1) / m.K;

        if (part.count == 0)
            continue;
        end = (end + block - 1) / block * block < m.N ? (end + block - 1) / block * block : m.N;
        for (int64_t row = first; row < end; row += most) {
            r.span = (struct hy3_span){row, end - row < most ? end - row : most};
            r.first = begin + row * m.K;
            HY3_TRY(put_rows(q, &r));
        }
    }
    return HY3_OK;
}

hy3_status hy3_quantize_end(MPI_Comm comm, struct hy3_quantizer *q)
{
    char text[HY3_ERROR_MAX] = "";
    size_t used = 0;

    if (!q->used) /* on no rank: all have seen all headers */
        return HY3_OK;
    HY3_TRY(hy3_store_share_scales(q->store));
    hy3_allreduce_real(comm, &q->sums[0][0], 2 * HY3_PARAM_KIND_COUNT, MPI_SUM,
                       "loading the weights");
    for (int i = 0; i < HY3_PARAM_KIND_COUNT; i++)
        if (q->sums[i][0] > 0 && used < sizeof text)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%s %.3g %%",
                                     used > 0 ? ", " : "", hy3_kinds[i].name,
                                     100 * sqrt(q->sums[i][1] / q->sums[i][0]));
    hy3_log(HY3_LOG_INFO, "quantized to 8 bits in blocks of %d x %d; relative RMS error: %.3000s",
            HY3_SCALE_BLOCK, HY3_SCALE_BLOCK, text);
    return HY3_OK;
}

void hy3_quantizer_close(struct hy3_quantizer *q)
{
    const struct hy3_device *device = device_of(q);

    hy3_free(q->raw);
    hy3_free(q->seen);
    hy3_free(q->kept);
    if (q->x)
        device->free(q->x);
    if (q->codes)
        device->free(q->codes);
}
