/* SPDX-License-Identifier: Apache-2.0 */
/* packed.c - a tensor of the unit is matrices of one size, each with its own form of scales. */
#include "parallel/packed.h"

#include "base/memory.h"
#include "comm/agree.h"
#include "comm/comm.h"

enum { BLOCK = 128, SHARED = 1 << 20 }; /* scales that are shared at a time */

struct form {
    int64_t rows, columns; /* of a block with one scale */
};

struct tensor {
    struct hy3_packed_place place;
    int64_t M, N, K;    /* held matrices; M 0: a vector */
    int64_t first;      /* number of the first one, over all experts */
    int64_t at, stride; /* place of its scales, and of those of the next matrix */
    struct form *forms; /* [M] */
};

struct hy3_packed {
    const struct hy3_backend *backend;
    const struct hy3_params *params;
    const struct hy3_unit *unit;
    hy3_dtype dtype;
    struct tensor *tensors; /* [unit->end - unit->first] */
    int64_t bytes, scale_count;
    float *scales; /* [scale_count] device */
};

bool hy3_packed_is_for(const struct hy3_params *params, int unit)
{
    const struct hy3_param *first = &params->params[params->unit[unit].first];
    enum hy3_part part = hy3_kinds[first->kind].unit;

    return unit < params->base_units && params->unit[unit].grad_count == 0 &&
           (part == HY3_OF_DENSE || part == HY3_OF_EXPERTS);
}

static struct tensor *tensor_of(const struct hy3_packed *p, const struct hy3_param *param)
{
    int64_t index = param - p->params->params - p->unit->first;

    HY3_ASSERT(index >= 0 && index < p->unit->end - p->unit->first);
    return &p->tensors[index];
}

static int64_t matrix_size(const struct tensor *t)
{
    return t->N * t->K;
}

static int64_t scale_count(const struct tensor *t, int64_t matrix)
{
    const struct form *f = &t->forms[matrix];

    return hy3_blocks(t->N, f->rows) * hy3_blocks(t->K, f->columns);
}

struct hy3_matrices hy3_packed_matrices(const struct hy3_param *param)
{
    int64_t parts = param->dims == 3 && hy3_kinds[param->kind].inner[1] ? 2 : 1;

    return (struct hy3_matrices){.count = param->dims == 3 ? param->shape[0] * parts : 1,
                                 .rows = param->shape[param->dims - 2] / parts,
                                 .columns = param->shape[param->dims - 1]};
}

static hy3_status describe(struct hy3_packed *p, const struct hy3_param *param)
{
    struct tensor *t = tensor_of(p, param);
    int64_t blocks;

    t->place = (struct hy3_packed_place){p->bytes, 1};
    if (param->dims == 1) {
        t->place.width = (int64_t)hy3_dtype_size(p->dtype);
    } else {
        const struct hy3_matrices matrices = hy3_packed_matrices(param);

        t->K = matrices.columns;
        t->N = matrices.rows;
        t->M = param->held / matrix_size(t);
        t->first = param->first / (param->count / matrices.count);
        blocks = hy3_blocks(t->N, BLOCK) * hy3_blocks(t->K, BLOCK);
        t->at = p->scale_count;
        t->stride = blocks > t->N ? blocks : t->N;
        p->scale_count += t->M * t->stride;
        HY3_TRY(hy3_alloc(&t->forms, (size_t)t->M, sizeof *t->forms));
        for (int64_t m = 0; m < t->M; m++)
            t->forms[m] = (struct form){t->N, t->K};
    }
    p->bytes +=
        (param->held * t->place.width + HY3_PARAM_ALIGN - 1) / HY3_PARAM_ALIGN * HY3_PARAM_ALIGN;
    return HY3_OK;
}

hy3_status hy3_packed_open(const struct hy3_backend *backend, const struct hy3_params *params,
                           int unit, hy3_dtype dtype, struct hy3_packed **out)
{
    hy3_status status = HY3_OK;
    struct hy3_packed *p = NULL;
    const struct hy3_unit *of = &params->unit[unit];
    void *scales = NULL;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&p, 1, sizeof *p));
    *p = (struct hy3_packed){.backend = backend, .params = params, .unit = of, .dtype = dtype};
    HY3_TRY_DONE(hy3_alloc(&p->tensors, (size_t)(of->end - of->first), sizeof *p->tensors));
    for (int i = of->first; i < of->end; i++)
        HY3_TRY_DONE(describe(p, &params->params[i]));
    HY3_TRY_DONE(backend->device.alloc(hy3_packed_scale_bytes(p), &scales));
    p->scales = scales;
    *out = HY3_TAKE(p);
done:
    hy3_packed_close(p);
    return status;
}

void hy3_packed_close(struct hy3_packed *packed)
{
    if (!packed)
        return;
    for (int i = 0; packed->tensors && i < packed->unit->end - packed->unit->first; i++)
        hy3_free(packed->tensors[i].forms);
    hy3_free(packed->tensors);
    packed->backend->device.free(packed->scales);
    hy3_free(packed);
}

int64_t hy3_packed_bytes(const struct hy3_packed *packed)
{
    return packed->bytes;
}

size_t hy3_packed_scale_bytes(const struct hy3_packed *packed)
{
    return (size_t)packed->scale_count * sizeof *packed->scales;
}

struct hy3_packed_place hy3_packed_place(const struct hy3_packed *packed,
                                         const struct hy3_param *param)
{
    return tensor_of(packed, param)->place;
}

/* Matrices from `first` on with scales of one form. */
static int64_t count_alike(const struct tensor *t, int64_t first)
{
    int64_t end = first + 1;

    while (end < t->M && t->forms[end].rows == t->forms[first].rows &&
           t->forms[end].columns == t->forms[first].columns)
        end++;
    return end - first;
}

hy3_status hy3_packed_expand(const struct hy3_packed *packed, struct hy3_stream *stream,
                             const char *image, char *whole)
{
    const struct hy3_backend *backend = packed->backend;
    size_t size = hy3_dtype_size(packed->dtype);

    for (int i = packed->unit->first; i < packed->unit->end; i++) {
        const struct hy3_param *param = &packed->params->params[i];
        const struct tensor *t = tensor_of(packed, param);
        const char *from = image + t->place.offset;
        char *to = whole + (size_t)param->offset * size;
        int64_t alike;

        if (t->M == 0)
            HY3_TRY(backend->device.copy(stream, to, from, (size_t)param->held * size));
        for (int64_t m = 0; m < t->M; m += alike) {
            struct hy3_expand a = {.N = t->N, .K = t->K, .stride = t->stride};

            alike = a.M = count_alike(t, m);
            a.rows = t->forms[m].rows;
            a.columns = t->forms[m].columns;
            a.x = (const hy3_fp8 *)from + m * matrix_size(t);
            a.scales = packed->scales + t->at + m * t->stride;
            a.dtype = packed->dtype;
            a.y = to + (size_t)(m * matrix_size(t)) * size;
            HY3_TRY(backend->kernels.expand(stream, &a));
        }
    }
    return HY3_OK;
}

hy3_status hy3_packed_put_scales(struct hy3_packed *packed, const struct hy3_param *param,
                                 const struct hy3_matrix_scales *scales)
{
    const struct hy3_device *device = &packed->backend->device;
    const struct tensor *t = tensor_of(packed, param);
    struct hy3_span held = hy3_span_intersect(scales->matrices, (struct hy3_span){t->first, t->M});

    for (int64_t i = held.first; i < hy3_span_end(held); i++) {
        int64_t m = i - t->first;
        float *to = packed->scales + t->at + m * t->stride;
        size_t bytes;

        t->forms[m] = (struct form){scales->rows, scales->columns};
        HY3_ASSERT(scales->stride == scale_count(t, m) && scales->stride <= t->stride);
        bytes = (size_t)scales->stride * sizeof *to;
        if (scales->values)
            HY3_TRY(device->copy(
                NULL, to, scales->values + (i - scales->matrices.first) * scales->stride, bytes));
        else
            HY3_TRY(device->zero(NULL, to, bytes));
    }
    return device->synchronize(NULL);
}

/* The span in parts of rows with one scale: codes `from` to `out`, or `in` to codes `to`. */
static hy3_status convert(const struct hy3_packed *packed, const struct hy3_param *param,
                          struct hy3_span span, const hy3_fp8 *from, float *out, const float *in,
                          hy3_fp8 *to)
{
    hy3_status status = HY3_OK;
    const struct hy3_device *device = &packed->backend->device;
    const struct tensor *t = tensor_of(packed, param);
    int64_t first = span.first - param->first, m, end;
    float *scales = NULL;

    HY3_TRY_DONE(hy3_alloc(&scales, (size_t)(t->M * t->stride), sizeof *scales));
    HY3_TRY_DONE(device->copy(NULL, scales, packed->scales + t->at,
                              (size_t)(t->M * t->stride) * sizeof *scales));
    HY3_TRY_DONE(device->synchronize(NULL));
    for (int64_t i = 0; i < span.count; i = end) {
        int64_t in_matrix = (first + i) % matrix_size(t), row = in_matrix / t->K;
        int64_t column = in_matrix % t->K, rest;
        const struct form *f;
        float scale;

        m = (first + i) / matrix_size(t);
        f = &t->forms[m];
        scale = scales[m * t->stride + row / f->rows * hy3_blocks(t->K, f->columns) +
                       column / f->columns];
        rest = f->columns - column % f->columns;
        rest = rest < t->K - column ? rest : t->K - column;
        end = rest < span.count - i ? i + rest : span.count;
        for (int64_t j = i; j < end; j++)
            if (out)
                out[j] = hy3_float_from_fp8(from[j]) * scale;
            else
                to[j] = hy3_fp8_from_float(in[j] / scale);
    }
done:
    hy3_free(scales);
    return status;
}

hy3_status hy3_packed_decode(const struct hy3_packed *packed, const struct hy3_param *param,
                             struct hy3_span span, const hy3_fp8 *codes, float *out)
{
    HY3_TRY(convert(packed, param, span, codes, out, NULL, NULL));
    for (int64_t i = 0; packed->dtype == HY3_BF16 && i < span.count; i++)
        out[i] = hy3_float_from_bf16(hy3_bf16_from_float(out[i]));
    return HY3_OK;
}

hy3_status hy3_packed_encode(const struct hy3_packed *packed, const struct hy3_param *param,
                             struct hy3_span span, const float *in, hy3_fp8 *codes)
{
    return convert(packed, param, span, NULL, NULL, in, codes);
}

hy3_status hy3_packed_quantize(struct hy3_packed *packed, const struct hy3_param *param,
                               int64_t matrix, struct hy3_span rows, const void *x, hy3_dtype dtype,
                               hy3_fp8 *codes)
{
    const struct tensor *t = tensor_of(packed, param);
    int64_t m = matrix - t->first;

    HY3_ASSERT(m >= 0 && m < t->M && rows.first % BLOCK == 0 && t->forms[m].rows == BLOCK &&
               t->forms[m].columns == BLOCK);
    return packed->backend->kernels.quantize(
        NULL, &(struct hy3_quantize){.N = rows.count,
                                     .K = t->K,
                                     .rows = BLOCK,
                                     .columns = BLOCK,
                                     .dtype = dtype,
                                     .x = x,
                                     .y = codes,
                                     .scales = packed->scales + t->at + m * t->stride +
                                               rows.first / BLOCK * hy3_blocks(t->K, BLOCK)});
}

/* A rank has zeros for what others have found, or the same. */
hy3_status hy3_packed_share_scales(struct hy3_packed *packed, const struct hy3_group *group)
{
    hy3_status status = HY3_OK;
    const struct hy3_device *device = &packed->backend->device;
    float *host = NULL;
    double *wide = NULL;

    if (group->size == 1)
        return HY3_OK;
    status = hy3_alloc(&host, SHARED, sizeof *host);
    if (status == HY3_OK)
        status = hy3_alloc(&wide, SHARED, sizeof *wide);
    HY3_AGREE_DONE(group->comm, status, "sharing the scales");
    for (int64_t at = 0; at < packed->scale_count; at += SHARED) {
        struct hy3_span part =
            hy3_span_piece((struct hy3_span){0, packed->scale_count}, at, SHARED);
        size_t bytes = (size_t)part.count * sizeof *host;

        HY3_AGREE_DONE(group->comm, device->copy(NULL, host, packed->scales + at, bytes),
                       "sharing the scales");
        HY3_AGREE_DONE(group->comm, device->synchronize(NULL), "sharing the scales");
        for (int64_t i = 0; i < part.count; i++)
            wide[i] = (double)host[i];
        hy3_allreduce_real(group->comm, wide, (int)part.count, MPI_MAX, "sharing the scales");
        for (int64_t i = 0; i < part.count; i++)
            host[i] = (float)wide[i];
        HY3_AGREE_DONE(group->comm, device->copy(NULL, packed->scales + at, host, bytes),
                       "sharing the scales");
        HY3_AGREE_DONE(group->comm, device->synchronize(NULL), "sharing the scales");
    }
done:
    hy3_free(host);
    hy3_free(wide);
    return status;
}
