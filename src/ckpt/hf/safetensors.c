/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors.c - the header is checked in full before any of it is used: known dtypes, shapes that
 * fill their byte ranges, ranges that cover the data without gap or overlap.
 *
 * The JSON library sees one name and one entry at a time, so that memory stays a few times the
 * header, whatever it contains. A name stays where it stood in the text, decoded. */
#include "ckpt/hf/safetensors.h"

#include "base/file.h"
#include "base/memory.h"

#include <jansson.h>

#include <unistd.h>

enum {
    HEADER_LIMIT = 100 * 1000 * 1000, /* as in the reference library */
    ENTRY_LIMIT = 64 << 10,           /* bytes of one tensor's entry */
    ENTRY_MIN = 49,                   /* "":{"dtype":"F4","shape":[],"data_offsets":[0,0]} */
    PIECE_BYTES = 16 << 20,           /* of a conversion */
};

struct hy3_shard {
    char *path;
    int fd;
    char *text; /* the header; names point into it */
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
    {"F8_E4M3", 8, false, HY3_FP8}, {"F8_E5M2", 8, false, 0}, {"F8_E8M0", 8, false, 0},
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

    t->name = name;
    if (!dtype)
        HY3_FAIL(HY3_EFORMAT, "%s: tensor '%s' has an unknown dtype", path, name);
    t->dtype_name = dtype->name;
    t->is_float = dtype->is_float;
    t->is_fp8 = dtype->dtype == HY3_FP8;
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

/* Checks that the tensors cover [data, size) exactly. */
static hy3_status check_cover(const struct hy3_shard *shard, int64_t data, int64_t size)
{
    int64_t at = data;

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

/* Sorts the numbers of the tensors by name, and checks that no name is there twice. */
static hy3_status index_names(struct hy3_shard *shard)
{
    HY3_TRY(hy3_alloc(&shard->by_name, (size_t)shard->count, sizeof *shard->by_name));
    for (int i = 0; i < shard->count; i++)
        shard->by_name[i] = i;
    if (shard->count > 0)
        qsort_r(shard->by_name, (size_t)shard->count, sizeof *shard->by_name, compare_names,
                shard->tensors);
    for (int i = 1; i < shard->count; i++) {
        const char *name = shard->tensors[shard->by_name[i]].name;

        if (strcmp(shard->tensors[shard->by_name[i - 1]].name, name) == 0)
            HY3_FAIL(HY3_EFORMAT, "%s: the header has two entries of tensor '%s'", shard->path,
                     name);
    }
    return HY3_OK;
}

/* A place in the text of the header. */
struct reader {
    struct hy3_shard *shard;
    char *at, *end;
    int64_t data, size; /* offset of the first tensor in the file, size of the file */
    bool has_metadata;
};

static hy3_status refuse(const struct reader *r, const char *what)
{
    HY3_FAIL(HY3_EFORMAT, "%s: the header is not valid JSON: %s at byte %lld", r->shard->path, what,
             (long long)(r->at - r->shard->text));
}

static bool skip_space(struct reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\n' || *r->at == '\r'))
        r->at++;
    return r->at < r->end;
}

/* Whether `c` comes next; it is then behind us. */
static bool passes(struct reader *r, char c)
{
    if (!skip_space(r) || *r->at != c)
        return false;
    r->at++;
    return true;
}

/* The text or object that comes next, within `limit` bytes. The caller owns *out. */
static hy3_status read_value(struct reader *r, size_t limit, json_t **out)
{
    const size_t flags =
        JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_DISABLE_EOF_CHECK;
    size_t size = (size_t)(r->end - r->at);
    json_error_t error;

    *out = json_loadb(r->at, size < limit ? size : limit, flags, &error);
    if (!*out && size > limit && json_error_code(&error) == json_error_premature_end_of_input)
        HY3_FAIL(HY3_EFORMAT, "%s: the entry at byte %lld of the header is longer than %zu bytes",
                 r->shard->path, (long long)(r->at - r->shard->text), limit);
    if (!*out)
        return refuse(r, error.text);
    r->at += error.position;
    return HY3_OK;
}

/* A name and its colon. The name is decoded in its place, which it never exceeds. */
static hy3_status read_name(struct reader *r, const char **name)
{
    char *to;
    json_t *text = NULL;
    size_t size;

    if (!skip_space(r) || *r->at != '"')
        return refuse(r, "a name is expected");
    to = r->at;
    HY3_TRY(read_value(r, SIZE_MAX, &text));
    size = json_string_length(text);
    memcpy(to, json_string_value(text), size);
    to[size] = '\0';
    json_decref(text);
    *name = to;
    if (strlen(to) != size)
        return refuse(r, "a name with NUL");
    return passes(r, ':') ? HY3_OK : refuse(r, "':' is expected");
}

typedef hy3_status read_member(struct reader *r, const char *name);

/* An object: each member's value is read by `read`. */
static hy3_status read_object(struct reader *r, read_member *read)
{
    const char *name = NULL;

    if (!passes(r, '{'))
        return refuse(r, "'{' is expected");
    if (passes(r, '}'))
        return HY3_OK;
    do {
        HY3_TRY(read_name(r, &name));
        skip_space(r);
        HY3_TRY(read(r, name));
    } while (passes(r, ','));
    return passes(r, '}') ? HY3_OK : refuse(r, "',' or '}' is expected");
}

/* What hy3 says in the headers of its own files. */
static hy3_status read_metadatum(struct reader *r, const char *name)
{
    char *base = r->shard->base;
    json_t *text = NULL;
    const char *value;

    if (r->at == r->end || *r->at != '"')
        HY3_FAIL(HY3_EFORMAT, "%s: '%.60s' in '__metadata__' is not a text", r->shard->path, name);
    HY3_TRY(read_value(r, SIZE_MAX, &text));
    value = json_string_value(text);
    if (strcmp(name, "hy3_base") == 0 && strlen(value) < HY3_SHARD_BASE &&
        strspn(value, "0123456789abcdef") == strlen(value))
        memcpy(base, value, strlen(value) + 1);
    json_decref(text);
    return HY3_OK;
}

static hy3_status read_metadata(struct reader *r)
{
    if (r->has_metadata)
        HY3_FAIL(HY3_EFORMAT, "%s: the header has two entries '__metadata__'", r->shard->path);
    r->has_metadata = true;
    if (r->at == r->end || *r->at != '{')
        HY3_FAIL(HY3_EFORMAT, "%s: '__metadata__' is not an object", r->shard->path);
    return read_object(r, read_metadatum);
}

static hy3_status read_entry(struct reader *r, const char *name)
{
    struct hy3_shard *shard = r->shard;
    hy3_status status = HY3_OK;
    json_t *value = NULL;

    if (strcmp(name, "__metadata__") == 0)
        return read_metadata(r);
    if (r->at == r->end || *r->at != '{')
        HY3_FAIL(HY3_EFORMAT, "%s: the entry of tensor '%s' is not an object", shard->path, name);
    HY3_TRY(read_value(r, ENTRY_LIMIT, &value));
    status = read_tensor(name, value, r->data, r->size, shard->path, &shard->tensors[shard->count]);
    shard->count += status == HY3_OK;
    json_decref(value);
    return status;
}

/* At least as many as the header has entries, each of which has a brace and a shortest form. */
static size_t bound_count(const struct reader *r)
{
    size_t most = (size_t)(r->end - r->at) / ENTRY_MIN + 1, braces = 0;

    for (const char *at = r->at; at < r->end && braces < most; at++)
        braces += *at == '{';
    return braces;
}

/* data: offset of the first tensor in the file, size: of the file. */
static hy3_status read_header(struct hy3_shard *shard, int64_t data, int64_t size)
{
    struct reader r = {shard, shard->text, shard->text + (data - 8), data, size, false};

    HY3_TRY(hy3_alloc(&shard->tensors, bound_count(&r), sizeof *shard->tensors));
    HY3_TRY(read_object(&r, read_entry));
    if (skip_space(&r))
        return refuse(&r, "the end is expected");
    if (shard->count > 0)
        qsort(shard->tensors, (size_t)shard->count, sizeof *shard->tensors, compare_places);
    HY3_TRY(index_names(shard));
    return check_cover(shard, data, size);
}

/* Reads the JSON text of the header; *data: offset of its end. */
static hy3_status load_header(struct hy3_shard *shard, int64_t size, int64_t *data)
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
    HY3_TRY(hy3_alloc(&shard->text, (size_t)length + 1, 1));
    HY3_TRY(hy3_file_read_at(shard->fd, shard->text, (size_t)length, 8, shard->path));
    *data = 8 + (int64_t)length;
    return HY3_OK;
}

hy3_status hy3_shard_open(const char *path, struct hy3_shard **out)
{
    hy3_status status = HY3_OK;
    struct hy3_shard *shard = NULL;
    int64_t size, data = 0;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&shard, 1, sizeof *shard));
    shard->fd = -1;
    HY3_TRY_DONE(hy3_strdup(path, &shard->path));
    HY3_TRY_DONE(hy3_file_open(path, &shard->fd));
    HY3_TRY_DONE(hy3_file_size(path, &size));
    HY3_TRY_DONE(load_header(shard, size, &data));
    HY3_TRY_DONE(read_header(shard, data, size));
    *out = HY3_TAKE(shard);
done:
    hy3_shard_close(shard);
    return status;
}

void hy3_shard_close(struct hy3_shard *shard)
{
    if (!shard)
        return;
    if (shard->fd >= 0)
        close(shard->fd);
    hy3_free(shard->tensors);
    hy3_free(shard->by_name);
    hy3_free(shard->text);
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
