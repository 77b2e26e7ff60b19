/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors.c - the header is checked in full before any of it is used: known dtypes, shapes that
 * fill their byte ranges, ranges that cover the data without gap or overlap. */
#include "ckpt/hf/safetensors.h"

#include "base/file.h"
#include "base/memory.h"

#include <jansson.h>

#include <unistd.h>

enum {
    HEADER_LIMIT = 100 * 1000 * 1000, /* as in the reference library */
    PIECE_BYTES = 16 << 20,           /* of a conversion */
};

struct hy3_shard {
    char *path;
    int fd;
    int count;
    struct hy3_shard_tensor *tensors; /* by place in the file */
    int *by_name;                     /* their numbers, sorted by name */
    char base[HY3_SHARD_BASE];        /* hy3_base of the metadata; "": none */
};

struct dtype_row {
    const char *name;
    int bits;
    bool is_float;
    hy3_dtype dtype;
};

/* clang-format off */
static const struct dtype_row dtypes[] = {
    {"F32",  32, true,  HY3_FP32}, {"BF16", 16, true,  HY3_BF16}, {"F16",  16, true,  HY3_FP16},
    {"BOOL",  8, false, 0}, {"U8",   8, false, 0}, {"I8",   8, false, 0},
    {"I16",  16, false, 0}, {"U16", 16, false, 0}, {"I32", 32, false, 0}, {"U32", 32, false, 0},
    {"I64",  64, false, 0}, {"U64", 64, false, 0}, {"F64", 64, false, 0}, {"C64", 64, false, 0},
    {"F8_E4M3", 8, false, 0}, {"F8_E5M2", 8, false, 0}, {"F8_E8M0", 8, false, 0},
    {"F8_E4M3FNUZ", 8, false, 0}, {"F8_E5M2FNUZ", 8, false, 0},
    {"F6_E2M3", 6, false, 0}, {"F6_E3M2", 6, false, 0}, {"F4", 4, false, 0},
};

/* clang-format on */

static const struct dtype_row *find_dtype(const char *name)
{
    for (size_t i = 0; name && i < sizeof dtypes / sizeof *dtypes; i++)
        if (strcmp(dtypes[i].name, name) == 0)
            return &dtypes[i];
    return NULL;
}

/* Elements of the shape, and the bytes they take; both fit 63 bits. */
static hy3_status read_shape(const json_t *shape, const struct dtype_row *dtype, const char *path,
                             struct hy3_shard_tensor *t)
{
    int64_t bits;

    if (!json_is_array(shape))
        HY3_FAIL(HY3_EFORMAT, "%s: the shape of tensor '%s' is not a list", path, t->name);
    if (json_array_size(shape) > HY3_SHARD_DIMS)
        HY3_FAIL(HY3_EFORMAT, "%s: tensor '%s' has %zu dimensions, at most %d are supported", path,
                 t->name, json_array_size(shape), HY3_SHARD_DIMS);
    t->dims = (int)json_array_size(shape);
    t->count = 1;
    for (int i = 0; i < t->dims; i++) {
        const json_t *extent = json_array_get(shape, (size_t)i);

        t->shape[i] = json_integer_value(extent);
        if (!json_is_integer(extent) || t->shape[i] < 0)
            HY3_FAIL(HY3_EFORMAT, "%s: the shape of tensor '%s' is not a list of counts", path,
                     t->name);
        if (__builtin_mul_overflow(t->count, t->shape[i], &t->count))
            HY3_FAIL(HY3_EFORMAT, "%s: tensor '%s' has more than 2^63 elements", path, t->name);
    }
    if (__builtin_mul_overflow(t->count, (int64_t)dtype->bits, &bits) || bits % 8 != 0)
        HY3_FAIL(HY3_EFORMAT, "%s: tensor '%s' does not end at a byte boundary", path, t->name);
    t->bytes = bits / 8;
    return HY3_OK;
}

/* Reads data_offsets; data: offset of the first tensor in the file, size: of the file. */
static hy3_status read_offsets(const json_t *offsets, int64_t data, int64_t size, const char *path,
                               struct hy3_shard_tensor *t)
{
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    int64_t b = json_integer_value(begin), e = json_integer_value(end);

    if (!json_is_array(offsets) || json_array_size(offsets) != 2 || !json_is_integer(begin) ||
        !json_is_integer(end))
        HY3_FAIL(HY3_EFORMAT, "%s: the data_offsets of tensor '%s' are not two counts", path,
                 t->name);
    if (b < 0 || e < b || e > size - data)
        HY3_FAIL(HY3_EFORMAT,
                 "%s: the data_offsets of tensor '%s' are %lld to %lld, outside of the "
                 "%lld bytes of data",
                 path, t->name, (long long)b, (long long)e, (long long)(size - data));
    if (e - b != t->bytes)
        HY3_FAIL(HY3_EFORMAT,
                 "%s: tensor '%s' has %lld bytes of data, its shape and dtype need %lld", path,
                 t->name, (long long)(e - b), (long long)t->bytes);
    t->begin = data + b;
    return HY3_OK;
}

static hy3_status read_tensor(const char *name, const json_t *value, int64_t data, int64_t size,
                              const char *path, struct hy3_shard_tensor *t)
{
    const struct dtype_row *dtype = find_dtype(json_string_value(json_object_get(value, "dtype")));
    char *copy;

    HY3_TRY(hy3_strdup(name, &copy));
    t->name = copy;
    if (!json_is_object(value))
        HY3_FAIL(HY3_EFORMAT, "%s: the entry of tensor '%s' is not an object", path, name);
    if (!dtype)
        HY3_FAIL(HY3_EFORMAT, "%s: tensor '%s' has an unknown dtype", path, name);
    t->dtype_name = dtype->name;
    t->is_float = dtype->is_float;
    t->dtype = dtype->dtype;
    HY3_TRY(read_shape(json_object_get(value, "shape"), dtype, path, t));
    return read_offsets(json_object_get(value, "data_offsets"), data, size, path, t);
}

static int compare_places(const void *a, const void *b)
{
    const struct hy3_shard_tensor *x = a, *y = b;
    int64_t x_end = x->begin + x->bytes, y_end = y->begin + y->bytes;

    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x_end != y_end ? (x_end < y_end ? -1 : 1) : strcmp(x->name, y->name);
}

static int compare_names(const void *a, const void *b, void *context)
{
    const struct hy3_shard_tensor *tensors = context;

    return strcmp(tensors[*(const int *)a].name, tensors[*(const int *)b].name);
}

/* Sorts the tensors by place and checks that they cover [data, size) exactly. */
static hy3_status check_cover(struct hy3_shard *shard, int64_t data, int64_t size)
{
    int64_t at = data;

    if (shard->count > 0)
        qsort(shard->tensors, (size_t)shard->count, sizeof *shard->tensors, compare_places);
    for (int i = 0; i < shard->count; i++) {
        const struct hy3_shard_tensor *t = &shard->tensors[i];

        if (t->begin != at)
            HY3_FAIL(HY3_EFORMAT, "%s: %s tensor '%s' at data offset %lld", shard->path,
                     t->begin > at ? "there is a gap before" : "another tensor overlaps", t->name,
                     (long long)(t->begin - data));
        at += t->bytes;
    }
    if (at != size)
        HY3_FAIL(HY3_EFORMAT, "%s: %lld bytes follow the last tensor", shard->path,
                 (long long)(size - at));
    return HY3_OK;
}

/* What hy3 says in the headers of its own files. */
static void read_metadata(struct hy3_shard *shard, const json_t *metadata)
{
    const char *base = json_string_value(json_object_get(metadata, "hy3_base"));

    if (base && strlen(base) < sizeof shard->base &&
        strspn(base, "0123456789abcdef") == strlen(base))
        snprintf(shard->base, sizeof shard->base, "%s", base);
}

static hy3_status read_header(struct hy3_shard *shard, const json_t *header, int64_t data,
                              int64_t size)
{
    const char *name;
    json_t *value;

    HY3_TRY(hy3_alloc(&shard->tensors, json_object_size(header), sizeof *shard->tensors));
    json_object_foreach((json_t *)header, name, value)
    {
        if (strcmp(name, "__metadata__") == 0) {
            if (!json_is_object(value))
                HY3_FAIL(HY3_EFORMAT, "%s: '__metadata__' is not an object", shard->path);
            read_metadata(shard, value);
            continue;
        }
        shard->count++; /* first, so that a half-read entry is freed */
        HY3_TRY(
            read_tensor(name, value, data, size, shard->path, &shard->tensors[shard->count - 1]));
    }
    HY3_TRY(check_cover(shard, data, size));
    HY3_TRY(hy3_alloc(&shard->by_name, (size_t)shard->count, sizeof *shard->by_name));
    for (int i = 0; i < shard->count; i++)
        shard->by_name[i] = i;
    if (shard->count > 0)
        qsort_r(shard->by_name, (size_t)shard->count, sizeof *shard->by_name, compare_names,
                shard->tensors);
    return HY3_OK;
}

/* The JSON text of the header; *data: offset of its end. */
static hy3_status load_header(const struct hy3_shard *shard, int64_t size, char **text,
                              int64_t *data)
{
    unsigned char prefix[8];
    uint64_t length = 0;

    if (size < 8)
        HY3_FAIL(HY3_EFORMAT, "%s: %lld bytes are too few for a safetensors file", shard->path,
                 (long long)size);
    HY3_TRY(hy3_file_read_at(shard->fd, prefix, sizeof prefix, 0, shard->path));
    for (int i = 7; i >= 0; i--)
        length = length << 8 | prefix[i];
    if (length > HEADER_LIMIT)
        HY3_FAIL(HY3_EFORMAT, "%s: the header claims %llu bytes, more than the %d it may have",
                 shard->path, (unsigned long long)length, HEADER_LIMIT);
    if ((int64_t)length > size - 8)
        HY3_FAIL(HY3_EFORMAT, "%s: the file ends inside its header of %llu bytes", shard->path,
                 (unsigned long long)length);
    HY3_TRY(hy3_alloc(text, (size_t)length + 1, 1));
    HY3_TRY(hy3_file_read_at(shard->fd, *text, (size_t)length, 8, shard->path));
    *data = 8 + (int64_t)length;
    return HY3_OK;
}

hy3_status hy3_shard_open(const char *path, struct hy3_shard **out)
{
    hy3_status status = HY3_OK;
    struct hy3_shard *shard = NULL;
    json_t *header = NULL;
    json_error_t error;
    char *text = NULL;
    int64_t size, data = 0;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&shard, 1, sizeof *shard));
    shard->fd = -1;
    HY3_TRY_DONE(hy3_strdup(path, &shard->path));
    HY3_TRY_DONE(hy3_file_open(path, &shard->fd));
    HY3_TRY_DONE(hy3_file_size(path, &size));
    HY3_TRY_DONE(load_header(shard, size, &text, &data));
    header = json_loadb(text, (size_t)(data - 8), JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &error);
    if (!header)
        HY3_FAIL_DONE(HY3_EFORMAT, "%s: the header is not valid JSON: %s", path, error.text);
    if (!json_is_object(header))
        HY3_FAIL_DONE(HY3_EFORMAT, "%s: the header is not an object", path);
    HY3_TRY_DONE(read_header(shard, header, data, size));
    *out = HY3_TAKE(shard);
done:
    json_decref(header);
    hy3_free(text);
    hy3_shard_close(shard);
    return status;
}

void hy3_shard_close(struct hy3_shard *shard)
{
    if (!shard)
        return;
    for (int i = 0; i < shard->count; i++)
        hy3_free((char *)shard->tensors[i].name);
    if (shard->fd >= 0)
        close(shard->fd);
    hy3_free(shard->tensors);
    hy3_free(shard->by_name);
    hy3_free(shard->path);
    hy3_free(shard);
}

int hy3_shard_count(const struct hy3_shard *shard)
{
    return shard->count;
}

const struct hy3_shard_tensor *hy3_shard_tensor(const struct hy3_shard *shard, int i)
{
    return &shard->tensors[i];
}

const struct hy3_shard_tensor *hy3_shard_find(const struct hy3_shard *shard, const char *name)
{
    int low = 0, high = shard->count;

    while (low < high) {
        int middle = low + (high - low) / 2;
        const struct hy3_shard_tensor *t = &shard->tensors[shard->by_name[middle]];
        int order = strcmp(name, t->name);

        if (order == 0)
            return t;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

const char *hy3_shard_path(const struct hy3_shard *shard)
{
    return shard->path;
}

const char *hy3_shard_dtype_name(hy3_dtype dtype)
{
    return dtype == HY3_FP32 ? "F32" : dtype == HY3_BF16 ? "BF16" : "F16";
}

void hy3_shard_shape_text(const int64_t *shape, int dims, char *out, size_t size)
{
    size_t used = (size_t)snprintf(out, size, "[");

    for (int i = 0; i < dims && used < size; i++)
        used +=
            (size_t)snprintf(out + used, size - used, "%s%lld", i ? ", " : "", (long long)shape[i]);
    if (used < size)
        snprintf(out + used, size - used, "]");
}

int hy3_shard_fd(const struct hy3_shard *shard)
{
    return shard->fd;
}

hy3_status hy3_shard_read_raw(const struct hy3_shard *shard, const struct hy3_shard_tensor *tensor,
                              int64_t at, int64_t bytes, void *data)
{
    HY3_ASSERT(at >= 0 && bytes >= 0 && bytes <= tensor->bytes - at);
    return hy3_file_read_at(shard->fd, data, (size_t)bytes, tensor->begin + at, shard->path);
}

hy3_status hy3_shard_read(const struct hy3_shard *shard, const struct hy3_shard_tensor *tensor,
                          struct hy3_span span, void *data, hy3_dtype dtype)
{
    hy3_status status = HY3_OK;
    int64_t size = (int64_t)hy3_dtype_size(tensor->dtype), most = PIECE_BYTES / size;
    char *raw = NULL, *to = data;

    HY3_ASSERT(tensor->is_float);
    if (tensor->dtype == dtype)
        return hy3_shard_read_raw(shard, tensor, span.first * size, span.count * size, data);
    most = most < span.count ? most : span.count;
    HY3_TRY_DONE(hy3_alloc(&raw, (size_t)most, (size_t)size));
    for (int64_t i = 0; i < span.count; i += most) {
        struct hy3_span piece = hy3_span_piece(span, i, most);

        HY3_TRY_DONE(
            hy3_shard_read_raw(shard, tensor, piece.first * size, piece.count * size, raw));
        hy3_convert(raw, tensor->dtype, to + (size_t)i * hy3_dtype_size(dtype), dtype,
                    (size_t)piece.count);
    }
done:
    hy3_free(raw);
    return status;
}

const char *hy3_shard_base(const struct hy3_shard *shard)
{
    return shard->base;
}
