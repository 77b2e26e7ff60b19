/* SPDX-License-Identifier: Apache-2.0 */
/* scales.c - forms are told apart by extents; what has one scale for several matrices is repeated
 * for each of them. */
#include "ckpt/hf/scales.h"

#include "base/file.h"
#include "base/memory.h"

#include <math.h>

static const char *const suffixes[] = {"_scale_inv", "_scale"};

void hy3_scale_reader_close(struct hy3_scale_reader *reader)
{
    hy3_shard_close(reader->other);
    reader->other = NULL;
}

/* Names of the scales of activations, below the module or behind a fused tensor. */
static bool is_activations(const char *name, char weight[HY3_PARAM_NAME])
{
    static const char *const behind[][2] = {{".input_scale", ".weight"},
                                            {".activation_scale", ".weight"},
                                            {"_input_scale", ""},
                                            {"_activation_scale", ""}};

    for (size_t i = 0; i < sizeof behind / sizeof *behind; i++)
        if (hy3_ends_with(name, behind[i][0])) {
            int length = (int)(strlen(name) - strlen(behind[i][0]));

            return snprintf(weight, HY3_PARAM_NAME, "%.*s%s", length, name, behind[i][1]) <
                   HY3_PARAM_NAME;
        }
    return false;
}

enum hy3_scale_kind hy3_scale_parse(const char *name, char weight[HY3_PARAM_NAME])
{
    if (is_activations(name, weight))
        return HY3_IGNORED_SCALE;
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++)
        if (hy3_ends_with(name, suffixes[i])) {
            int length = (int)(strlen(name) - strlen(suffixes[i]));

            return snprintf(weight, HY3_PARAM_NAME, "%.*s", length, name) < HY3_PARAM_NAME
                       ? HY3_SCALE
                       : HY3_NO_SCALE;
        }
    return HY3_NO_SCALE;
}

int hy3_scale_find(const struct hy3_hf_dir *dir, const char *weight)
{
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes; i++) {
        char name[HY3_PARAM_NAME + 16];
        int found;

        snprintf(name, sizeof name, "%.*s%s", HY3_PARAM_NAME, weight, suffixes[i]);
        if ((found = hy3_hf_dir_find(dir, name)) >= 0)
            return found;
    }
    return -1;
}

static int64_t blocks(int64_t n)
{
    return (n + HY3_SCALE_BLOCK - 1) / HY3_SCALE_BLOCK;
}

bool hy3_scales_matrices(const struct hy3_place *place, const struct hy3_shape *shape,
                         struct hy3_scales *out)
{
    *out = (struct hy3_scales){.M = 1};
    if (place->dims < 2 || place->span.count == 0)
        return false;
    if (place->dims == 3)
        out->M = hy3_name_pieces(place->param, shape, HY3_INNER);
    out->K = place->shape[place->dims - 1];
    out->N = place->span.count / out->M / out->K;
    return true;
}

bool hy3_scales_shape(const struct hy3_place *place, const struct hy3_shape *shape,
                      const struct hy3_shard_tensor *tensor, struct hy3_scales *out)
{
    int64_t experts = place->dims == 3 ? place->shape[0] : 1, parts, down, across;
    const int64_t *extents = tensor->shape + (place->dims == 3);
    int dims = tensor->dims - (place->dims == 3);

    if (!hy3_scales_matrices(place, shape, out))
        return false;
    parts = out->M / experts;
    out->rows = out->N;
    out->columns = out->K;
    out->stride = 1;
    if (tensor->count == 1)
        return true;
    if (dims < 0 || dims > 2 || (place->dims == 3 && tensor->shape[0] != experts))
        return false;
    down = dims > 0 ? extents[0] : 1;
    across = dims > 1 ? extents[1] : 1;
    if (across == 1 && (down == 1 || down == parts))
        return true;
    if (across == 1 && down == parts * out->N) {
        out->rows = 1;
        out->stride = out->N;
        return true;
    }
    out->rows = out->columns = HY3_SCALE_BLOCK;
    out->stride = blocks(out->N) * blocks(out->K);
    return down == parts * blocks(out->N) && across == blocks(out->K);
}

static hy3_status open_scales(struct hy3_scale_reader *r, const struct hy3_shard *own,
                              const char *weight, const struct hy3_shard **shard,
                              const struct hy3_shard_tensor **tensor)
{
    int found = hy3_scale_find(r->dir, weight), number;
    const char *name;

    if (found < 0)
        HY3_FAIL(HY3_EFORMAT,
                 "%s: tensor '%s' is F8_E4M3 without scales: '%s_scale_inv' or '%s_scale' is "
                 "missing",
                 hy3_shard_path(own), weight, weight, weight);
    name = hy3_hf_dir_tensor(r->dir, found, &number);
    *shard = own;
    if ((*tensor = hy3_shard_find(own, name)))
        return HY3_OK;
    if (!r->other || r->number != number) {
        hy3_scale_reader_close(r);
        HY3_TRY(hy3_hf_dir_open_shard(r->dir, number, &r->other));
        r->number = number;
    }
    *shard = r->other;
    *tensor = hy3_shard_find(r->other, name);
    if (!*tensor)
        HY3_FAIL(HY3_EFORMAT, "%s: tensor '%s' is missing", hy3_shard_path(r->other), name);
    return HY3_OK;
}

/* values: [M,stride]; what the file has of them is repeated. */
static hy3_status spread(const struct hy3_shard *shard, const struct hy3_shard_tensor *tensor,
                         struct hy3_scales *out)
{
    int64_t count = out->M * out->stride, times = count / tensor->count;

    for (int64_t i = 0; i < tensor->count; i++)
        if (!isfinite(out->values[i]) || out->values[i] <= 0)
            HY3_FAIL(HY3_EFORMAT,
                     "%s: element %lld of '%s' is %g; a scale is finite and above 0, the file is "
                     "damaged",
                     hy3_shard_path(shard), (long long)i, tensor->name, (double)out->values[i]);
    for (int64_t i = count - 1; i >= 0; i--)
        out->values[i] = out->values[i / times];
    return HY3_OK;
}

hy3_status hy3_scales_read(struct hy3_scale_reader *reader, const struct hy3_shard *shard,
                           const struct hy3_shard_tensor *tensor, const struct hy3_place *place,
                           const struct hy3_shape *shape, struct hy3_scales *out)
{
    hy3_status status = HY3_OK;
    const struct hy3_shard *from;
    const struct hy3_shard_tensor *scales;
    char is[96];

    *out = (struct hy3_scales){0};
    HY3_TRY_DONE(open_scales(reader, shard, tensor->name, &from, &scales));
    hy3_shard_shape_text(scales->shape, scales->dims, is, sizeof is);
    if (!scales->is_float || !hy3_scales_shape(place, shape, scales, out))
        HY3_FAIL_DONE(HY3_EFORMAT,
                      "%s: '%s' is %s %s; scales are floats, one for the tensor, for each row or "
                      "for each block of %d x %d",
                      hy3_shard_path(from), scales->name, scales->dtype_name, is, HY3_SCALE_BLOCK,
                      HY3_SCALE_BLOCK);
    HY3_TRY_DONE(hy3_alloc(&out->values, (size_t)(out->M * out->stride), sizeof *out->values));
    HY3_TRY_DONE(
        hy3_shard_read(from, scales, (struct hy3_span){0, scales->count}, out->values, HY3_FP32));
    HY3_TRY_DONE(spread(from, scales, out));
    return HY3_OK;
done:
    hy3_scales_free(out);
    return status;
}

void hy3_scales_free(struct hy3_scales *scales)
{
    hy3_free(scales->values);
    scales->values = NULL;
}

/* A part of a row. */
static void expand_row(const struct hy3_scales *s, int64_t first, int64_t count,
                       const hy3_fp8 *codes, float *out)
{
    int64_t row = first / s->K, column = first % s->K;
    int64_t across = (s->K + s->columns - 1) / s->columns;
    const float *scales = s->values + row / s->N * s->stride + row % s->N / s->rows * across;

    for (int64_t i = 0; i < count;) {
        int64_t end = s->columns - (column + i) % s->columns;
        float scale = scales[(column + i) / s->columns];

        end = end < count - i ? i + end : count;
        for (; i < end; i++)
            out[i] = hy3_float_from_fp8(codes[i]) * scale;
    }
}

void hy3_scales_expand(const struct hy3_scales *scales, struct hy3_span span, const hy3_fp8 *codes,
                       float *out)
{
    int64_t K = scales->K, end = hy3_span_end(span);

#pragma omp parallel for schedule(static)
    for (int64_t row = span.first / K; row < (end + K - 1) / K; row++) {
        struct hy3_span part = hy3_span_intersect(span, (struct hy3_span){row * K, K});

        expand_row(scales, part.first, part.count, codes + (part.first - span.first),
                   out + (part.first - span.first));
    }
}

hy3_status hy3_scales_read_values(struct hy3_scale_reader *reader, const struct hy3_shard *shard,
                                  const struct hy3_shard_tensor *tensor,
                                  const struct hy3_place *place, const struct hy3_shape *shape,
                                  struct hy3_span span, float *out)
{
    hy3_status status = HY3_OK;
    struct hy3_scales scales = {0};
    hy3_fp8 *codes = NULL;

    if (!tensor->is_fp8)
        return hy3_shard_read(shard, tensor, span, out, HY3_FP32);
    HY3_TRY_DONE(hy3_scales_read(reader, shard, tensor, place, shape, &scales));
    HY3_TRY_DONE(hy3_alloc(&codes, (size_t)span.count, sizeof *codes));
    HY3_TRY_DONE(hy3_shard_read_raw(shard, tensor, span.first, span.count, codes));
    hy3_scales_expand(&scales, span, codes, out);
done:
    hy3_free(codes);
    hy3_scales_free(&scales);
    return status;
}
