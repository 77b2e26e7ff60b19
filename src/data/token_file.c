/* SPDX-License-Identifier: Apache-2.0 */
/* token_file.c - the tables of attributes and columns, and the checks of an existing file. */
#include "data/token_file.h"

#include "base/file.h"
#include "base/hdf5_seal.h"
#include "base/memory.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#define FIELD(name) offsetof(struct hy3_token_header, name)

/* clang-format off */
const struct hy3_token_attribute hy3_token_attributes[] = {
    {"format_version",        FIELD(format),               false},
    {"tokenizer_fingerprint", FIELD(tokenizer),            true},
    {"source_fingerprint",    FIELD(source),               true},
    {"reading_fingerprint",   FIELD(reading),              true},
    {"source_piece_bytes",    FIELD(piece_bytes),          false},
    {"source_portions",       FIELD(hashed),               false},
    {"source_bytes",          FIELD(summary.bytes),        false},
    {"max_seq_length",        FIELD(max_seq_length),       false},
    {"max_samples",           FIELD(max_samples),          false},
    {"keep_unlabelled",       FIELD(keep_unlabelled),      false},
    {"content_tokens",        FIELD(content_tokens),       false},
    {"lines",                 FIELD(summary.lines),        false},
    {"samples",               FIELD(summary.samples),      false},
    {"tokens",                FIELD(summary.tokens),       false},
    {"label_tokens",          FIELD(summary.label_tokens), false},
    {"longest",               FIELD(summary.longest),      false},
    {"truncated",             FIELD(summary.truncated),    false},
    {"dropped",               FIELD(summary.dropped),      false},
    {"bad",                   FIELD(summary.bad),          false},
    {"null_contents",         FIELD(summary.null_contents), false},
    {"weighted_labels",       FIELD(summary.weighted),     false},
    {"unlabelled",            FIELD(summary.unlabelled),   false},
    {NULL,                    0,                           false},
};

const struct hy3_token_column hy3_token_columns[HY3_TOKEN_COLUMNS + 1] = {
    {"tokens",          4, HY3_TOKENS,        FIELD(tokens_at),          false},
    {"label_mask",      1, HY3_TOKENS,        FIELD(mask_at),            false},
    {"loss_weight",     4, HY3_TOKENS,        FIELD(weights_at),         true},
    {"offsets",         8, HY3_SAMPLE_STARTS, FIELD(offsets_at),         false},
    {"source_line",     8, HY3_SAMPLES,       FIELD(line_at),            false},
    {"source_file",     4, HY3_SAMPLES,       FIELD(file_at),            false},
    {"checksum",        8, HY3_SAMPLES,       FIELD(checksum_at),        false},
    {"weight_checksum", 8, HY3_SAMPLES,       FIELD(weight_checksum_at), true},
    {"source_size",     8, HY3_FILES,         SIZE_MAX,                  false},
    {"source_mtime_ns", 8, HY3_FILES,         SIZE_MAX,                  false},
    {"source_ctime_ns", 8, HY3_FILES,         SIZE_MAX,                  false},
    {"source_sampled",  8, HY3_FILES,         SIZE_MAX,                  false},
    {NULL,              0, HY3_TOKENS,        0,                         false},
};

/* clang-format on */

bool hy3_token_column_exists(const struct hy3_token_column *column,
                             const struct hy3_token_header *header)
{
    return !column->of_weights || header->summary.weighted > 0;
}

int64_t hy3_token_column_count(const struct hy3_token_column *column,
                               const struct hy3_token_header *header, int file_count)
{
    switch (column->kind) {
    case HY3_TOKENS:
        return header->summary.tokens;
    case HY3_SAMPLES:
        return header->summary.samples;
    case HY3_SAMPLE_STARTS:
        return header->summary.samples + 1;
    case HY3_FILES:
        break;
    }
    return file_count;
}

hid_t hy3_token_column_type(const struct hy3_token_column *column)
{
    if (column->kind == HY3_FILES)
        return H5T_STD_I64LE;
    if (column->of_weights && column->kind == HY3_TOKENS)
        return H5T_IEEE_F32LE;
    return column->size == 8 ? H5T_STD_U64LE : column->size == 4 ? H5T_STD_U32LE : H5T_STD_U8LE;
}

int64_t hy3_token_column_value(const struct hy3_token_column *column,
                               const struct hy3_source *source)
{
    if (strcmp(column->name, "source_size") == 0)
        return source->size;
    if (strcmp(column->name, "source_mtime_ns") == 0)
        return source->mtime_ns;
    return strcmp(column->name, "source_ctime_ns") == 0 ? source->ctime_ns : source->sampled;
}

hid_t hy3_token_attribute_type(const struct hy3_token_attribute *attribute)
{
    return attribute->is_fingerprint ? H5T_NATIVE_UINT64 : H5T_NATIVE_INT64;
}

static hy3_status read_unread(hid_t file, struct hy3_token_header *h)
{
    char *text = NULL;

    HY3_TRY(hy3_hdf5_get_text(file, "unread_keys", sizeof h->summary.unread - 1, &text));
    snprintf(h->summary.unread, sizeof h->summary.unread, "%s", text);
    hy3_free(text);
    return HY3_OK;
}

static hy3_status read_attributes(hid_t file, struct hy3_token_header *h)
{
    int64_t is_complete = 0;

    HY3_TRY(hy3_hdf5_get_number(file, "complete", H5T_NATIVE_INT64, &is_complete));
    if (is_complete != 1)
        HY3_FAIL(HY3_EFORMAT, "it is not marked complete");
    HY3_TRY(hy3_hdf5_get_number(file, "format_version", H5T_NATIVE_INT64, &h->format));
    if (h->format != HY3_TOKEN_FORMAT)
        HY3_FAIL(HY3_EFORMAT, "it has format %lld, this program writes %d", (long long)h->format,
                 HY3_TOKEN_FORMAT);
    for (const struct hy3_token_attribute *a = hy3_token_attributes; a->name; a++)
        HY3_TRY(
            hy3_hdf5_get_number(file, a->name, hy3_token_attribute_type(a), (char *)h + a->offset));
    if (h->summary.samples < 1 || h->summary.tokens < h->summary.samples || h->hashed < 0 ||
        h->piece_bytes < 1 || h->summary.weighted < 0)
        HY3_FAIL(HY3_EFORMAT, "its counts are inconsistent");
    return read_unread(file, h);
}

/* Differing sizes or times are no error: then the contents are compared. */
static hy3_status compare_files(hid_t set, const struct hy3_token_column *column,
                                const struct hy3_source *sources, int count,
                                struct hy3_token_header *h)
{
    hy3_status status = HY3_OK;
    int64_t *values = NULL;

    HY3_TRY_DONE(hy3_alloc(&values, (size_t)count, sizeof *values));
    if (H5Dread(set, H5T_NATIVE_INT64, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0)
        HY3_FAIL_DONE(HY3_EFORMAT, "its data set '%s' cannot be read", column->name);
    for (int f = 0; f < count; f++)
        if (values[f] != hy3_token_column_value(column, &sources[f]))
            h->has_same_sources = false;
done:
    hy3_free(values);
    return status;
}

static hy3_status compare_names(hid_t file, const struct hy3_source *sources, int count,
                                struct hy3_token_header *h)
{
    hy3_status status = HY3_OK;
    struct hy3_hdf5_place place;
    hid_t set = -1, type = -1;
    size_t width = 0;
    char *names = NULL;

    HY3_TRY_DONE(hy3_hdf5_open_set(file, "source_name", H5T_C_S1, h->size, &place, &set));
    if ((type = H5Dget_type(set)) < 0 || place.dims != 1 || place.count != count ||
        (width = H5Tget_size(type)) > HY3_PATH_MAX)
        HY3_FAIL_DONE(HY3_EFORMAT, "its list of source files has another shape");
    HY3_TRY_DONE(hy3_alloc(&names, (size_t)count, width));
    if (H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, names) < 0)
        HY3_FAIL_DONE(HY3_EFORMAT, "its list of source files cannot be read");
    for (int f = 0; f < count; f++)
        if (strlen(sources[f].path) > width ||
            strncmp(names + (size_t)f * width, sources[f].path, width) != 0)
            h->has_same_sources = false;
done:
    if (type >= 0)
        H5Tclose(type);
    if (set >= 0)
        H5Dclose(set);
    hy3_free(names);
    return status;
}

static hy3_status inspect_columns(hid_t file, const struct hy3_source *sources, int count,
                                  struct hy3_token_header *h)
{
    hy3_status status = HY3_OK;
    struct hy3_hdf5_place place;
    hid_t set = -1;

    h->has_same_sources = true;
    for (const struct hy3_token_column *c = hy3_token_columns; c->name; c++) {
        int64_t elements = hy3_token_column_count(c, h, count);

        if (!hy3_token_column_exists(c, h))
            continue;
        HY3_TRY_DONE(
            hy3_hdf5_open_set(file, c->name, hy3_token_column_type(c), h->size, &place, &set));
        if (place.dims != 1 || place.count != elements)
            HY3_FAIL_DONE(HY3_EFORMAT, "its data set '%s' does not have %lld elements", c->name,
                          (long long)elements);
        if (c->kind == HY3_FILES)
            HY3_TRY_DONE(compare_files(set, c, sources, count, h));
        else
            *(int64_t *)(void *)((char *)h + c->offset) = place.offset;
        H5Dclose(set);
        set = -1;
    }
    HY3_TRY_DONE(compare_names(file, sources, count, h));
done:
    if (set >= 0)
        H5Dclose(set);
    return status;
}

static hy3_status stat_file(int fd, const char *path, struct hy3_token_header *h)
{
    struct stat info;

    if (fstat(fd, &info) != 0)
        HY3_FAIL(HY3_EIO, "cannot read '%s': %s", path, strerror(errno));
    h->size = info.st_size;
    h->device = (int64_t)info.st_dev;
    h->inode = (int64_t)info.st_ino;
    h->mtime_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
    return HY3_OK;
}

/* The offsets ascend from 0 to the number of tokens, and the longest sample is the longest. */
static hy3_status read_offsets(const char *path, const struct hy3_token_header *h, uint64_t **out)
{
    hy3_status status = HY3_OK;
    size_t samples = (size_t)h->summary.samples;
    uint64_t *offsets = NULL, longest = 0;
    int fd = -1;

    HY3_TRY_DONE(hy3_token_file_open(path, h, &fd));
    HY3_TRY_DONE(hy3_alloc(&offsets, samples + 1, sizeof *offsets));
    HY3_TRY_DONE(
        hy3_file_read_at(fd, offsets, (samples + 1) * sizeof *offsets, h->offsets_at, path));
    for (size_t i = 0; i < samples; i++) {
        if (offsets[i + 1] <= offsets[i])
            HY3_FAIL_DONE(HY3_EFORMAT, "its offsets do not ascend at sample %zu", i);
        if (offsets[i + 1] - offsets[i] > longest)
            longest = offsets[i + 1] - offsets[i];
    }
    if (offsets[0] != 0 || offsets[samples] != (uint64_t)h->summary.tokens ||
        longest != (uint64_t)h->summary.longest || longest > (uint64_t)h->max_seq_length)
        HY3_FAIL_DONE(HY3_EFORMAT, "its offsets do not fit its counts");
    *out = HY3_TAKE(offsets);
done:
    if (fd >= 0)
        close(fd);
    hy3_free(offsets);
    return status;
}

hy3_status hy3_token_file_inspect(const char *path, const struct hy3_source *sources, int count,
                                  struct hy3_token_header *out, uint64_t **offsets)
{
    hy3_status status = HY3_OK;
    hid_t file = -1;
    bool is_sealed;
    int fd = -1;

    memset(out, 0, sizeof *out);
    *offsets = NULL;
    HY3_TRY_DONE(hy3_file_open(path, &fd));
    HY3_TRY_DONE(stat_file(fd, path, out));
    HY3_TRY_DONE(hy3_hdf5_seal_check(fd, path, &is_sealed));
    if (!is_sealed)
        HY3_FAIL_DONE(HY3_EFORMAT,
                      "the checksum of its metadata is missing: it was cut short, or "
                      "is of an earlier version");
    HY3_TRY_DONE(hy3_hdf5_open_file(path, &file));
    HY3_TRY_DONE(read_attributes(file, out));
    HY3_TRY_DONE(inspect_columns(file, sources, count, out));
    HY3_TRY_DONE(read_offsets(path, out, offsets));
done:
    hy3_hdf5_close(file);
    if (fd >= 0)
        close(fd);
    return status;
}

hy3_status hy3_token_file_open(const char *path, const struct hy3_token_header *header, int *fd)
{
    struct hy3_token_header now;

    HY3_TRY(hy3_file_open(path, fd));
    HY3_TRY(stat_file(*fd, path, &now));
    if (now.size != header->size || now.inode != header->inode ||
        now.mtime_ns != header->mtime_ns) {
        close(*fd);
        *fd = -1;
        HY3_FAIL(HY3_EIO,
                 "'%s' was replaced by another job while it was being opened; give each job its "
                 "own cache_dir",
                 path);
    }
    return HY3_OK;
}
