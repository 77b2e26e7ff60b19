/* SPDX-License-Identifier: Apache-2.0 */
/* layout.c - HDF5 writes an image of the file in memory; what it wrote is copied to the disk. */
#include "ckpt/state/layout.h"

#include "base/file.h"
#include "base/memory.h"
#include "ckpt/state/seal.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    PIECE = 1 << 16,      /* bytes copied or compared at a time */
    IMAGE_ROOM = 64 << 20 /* bytes: more than the metadata of any state */
};

/* A byte that differs in the complete file. */
struct hy3_state_byte {
    int64_t offset;
    char value;
};

struct hy3_state_layout {
    const char *path;
    int fd;                      /* during hy3_state_layout_create */
    struct hy3_state_byte *mark; /* [mark_bytes] */
    size_t mark_bytes, capacity;
    struct hy3_state_seal seal;
    int64_t file_bytes; /* where it is put */
};

static hy3_status create_field(hid_t file, const char *path, struct hy3_state_index *index,
                               enum hy3_field field)
{
    hy3_status status = HY3_OK;
    hid_t group, set = -1;

    if ((group = H5Gcreate2(file, hy3_state_field_name(field), H5P_DEFAULT, H5P_DEFAULT,
                            H5P_DEFAULT)) < 0)
        return hy3_hdf5_fail("create", hy3_state_field_name(field), path);
    for (int64_t i = 0; i < index->tensor_count; i++) {
        struct hy3_state_tensor *t = &index->tensors[i];
        struct hy3_hdf5_place place = {.dims = (int)t->dims};

        memcpy(place.shape, t->shape, sizeof place.shape);
        HY3_TRY_DONE(hy3_hdf5_create_set(group, t->name, H5T_IEEE_F32LE, path, &place, &set));
        HY3_TRY_DONE(hy3_hdf5_put_number(set, "tensor", H5T_NATIVE_INT64, &i, path));
        t->offset[field] = place.offset;
        H5Dclose(set);
        set = -1;
    }
done:
    if (set >= 0)
        H5Dclose(set);
    H5Gclose(group);
    return status;
}

static hy3_status create_slabs(hid_t file, const char *path, struct hy3_state_index *index)
{
    hy3_status status = HY3_OK;
    struct hy3_hdf5_place place = {.dims = 2, .shape = {index->slab_count, HY3_STATE_SLAB_COLUMNS}};
    hid_t set = -1;

    HY3_TRY_DONE(hy3_hdf5_create_set(file, "checksums", H5T_STD_U64LE, path, &place, &set));
    HY3_TRY_DONE(hy3_hdf5_put_text(set, "columns", "field tensor first count xxh3", path));
    index->slabs_offset = place.offset;
done:
    if (set >= 0)
        H5Dclose(set);
    return status;
}

/* Bytes of the datasets of an index. */
static int64_t data_bytes(const struct hy3_state_index *index)
{
    int64_t bytes = index->slab_count * HY3_STATE_SLAB_COLUMNS * 8;

    for (int64_t i = 0; i < index->tensor_count; i++)
        bytes += index->tensors[i].count * HY3_FIELDS * (int64_t)sizeof(float);
    return bytes;
}

/* Metadata has checksums, and opening a file changes nothing in it (formats from 1.10 on mark it as
 * being written). */
static hid_t file_format(void)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);

    H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18);
    return access;
}

static hy3_status lay_out(hid_t file, const char *path, struct hy3_state_index *index)
{
    int64_t version = HY3_STATE_VERSION,
            complete = 0; /* has its place already, so that the mark needs no more space */

    HY3_TRY(hy3_hdf5_put_number(file, "version", H5T_NATIVE_INT64, &version, path));
    HY3_TRY(hy3_hdf5_put_number(file, "complete", H5T_NATIVE_INT64, &complete, path));
    for (const struct hy3_state_attribute *a = hy3_state_attributes; a->name; a++) {
        const char *value = (const char *)&index->info + a->offset;

        if (a->type == 't')
            HY3_TRY(hy3_hdf5_put_text(file, a->name, value, path));
        else
            HY3_TRY(
                hy3_hdf5_put_number(file, a->name, hy3_state_memory_type(a->type), value, path));
    }
    if (strlen(index->configuration) < HY3_STATE_CONFIGURATION_LIMIT)
        HY3_TRY(hy3_hdf5_put_text(file, "configuration", index->configuration, path));
    for (int field = 0; field < HY3_FIELDS; field++)
        HY3_TRY(create_field(file, path, index, field));
    return create_slabs(file, path, index);
}

/* Closes an image that HDF5 could flush, discards it otherwise. */
static hy3_status flush_and_close(hid_t image, const char *path)
{
    hy3_status status = HY3_OK;

    if (H5Fflush(image, H5F_SCOPE_GLOBAL) >= 0) {
        H5Fclose(image);
        return HY3_OK;
    }
    status = hy3_hdf5_fail("lay out", NULL, path);
    hy3_hdf5_discard(image);
    return status;
}

static hy3_status create_image(const char *name, const char *path, struct hy3_state_index *index)
{
    hy3_status status = HY3_OK;
    hid_t access = file_format(), image = H5Fcreate(name, H5F_ACC_TRUNC, H5P_DEFAULT, access);

    if (image < 0)
        status = hy3_hdf5_fail("lay out", NULL, path);
    H5Pclose(access);
    HY3_TRY(status);
    status = lay_out(image, path, index);
    if (status == HY3_OK)
        return flush_and_close(image, path);
    hy3_hdf5_discard(image);
    return status;
}

/* Sets the mark in the image. */
static hy3_status complete_image(const char *name, const char *path)
{
    hy3_status status = HY3_OK;
    const int64_t complete = 1;
    hid_t image = H5Fopen(name, H5F_ACC_RDWR, H5P_DEFAULT), attribute = -1;

    if (image < 0)
        return hy3_hdf5_fail("complete", NULL, path);
    attribute = H5Aopen(image, "complete", H5P_DEFAULT);
    if (attribute < 0 || H5Awrite(attribute, H5T_NATIVE_INT64, &complete) < 0)
        status = hy3_hdf5_fail("complete", NULL, path);
    if (attribute >= 0)
        H5Aclose(attribute);
    if (status == HY3_OK)
        return flush_and_close(image, path);
    hy3_hdf5_discard(image);
    return status;
}

typedef hy3_status (*visit)(struct hy3_state_layout *layout, const char *data, size_t size,
                            int64_t offset);

static hy3_status copy(struct hy3_state_layout *l, const char *data, size_t size, int64_t offset)
{
    return hy3_file_write_at(l->fd, data, size, offset, l->path);
}

/* Notes where the image has changed since it was copied. */
static hy3_status compare(struct hy3_state_layout *l, const char *data, size_t size, int64_t offset)
{
    char written[PIECE];

    HY3_TRY(hy3_file_read_at(l->fd, written, size, offset, l->path));
    for (size_t i = 0; i < size; i++) {
        if (data[i] == written[i])
            continue;
        HY3_TRY(hy3_grow(&l->mark, &l->capacity, l->mark_bytes + 1, sizeof *l->mark));
        l->mark[l->mark_bytes++] = (struct hy3_state_byte){offset + (int64_t)i, data[i]};
    }
    return HY3_OK;
}

/* Calls `each` for all that HDF5 has written into the image; the rest are holes. */
static hy3_status walk(struct hy3_state_layout *l, int image, visit each)
{
    char data[PIECE];
    off_t at = 0, end;

    while ((at = lseek(image, at, SEEK_DATA)) >= 0 && (end = lseek(image, at, SEEK_HOLE)) > at)
        for (size_t size; at < end; at += (off_t)size) {
            size = end - at < PIECE ? (size_t)(end - at) : PIECE;
            HY3_TRY(hy3_file_read_at(image, data, size, at, l->path));
            HY3_TRY(each(l, data, size, at));
        }
    return HY3_OK;
}

static int by_place(const void *a, const void *b)
{
    const struct hy3_span *x = a, *y = b;

    return (x->first > y->first) - (x->first < y->first);
}

/* The places of all values, ascending, neighbours joined. The caller owns *out. */
static hy3_status list_runs(const struct hy3_state_index *index, struct hy3_span **out,
                            int64_t *count)
{
    struct hy3_span *runs;
    int64_t n = 0, kept = 0;

    HY3_TRY(hy3_alloc(&runs, (size_t)(index->tensor_count * HY3_FIELDS + 1), sizeof *runs));
    for (int64_t i = 0; i < index->tensor_count; i++)
        for (int field = 0; field < HY3_FIELDS; field++)
            runs[n++] = (struct hy3_span){index->tensors[i].offset[field],
                                          index->tensors[i].count * (int64_t)sizeof(float)};
    if (index->slab_count > 0)
        runs[n++] =
            (struct hy3_span){index->slabs_offset, index->slab_count * HY3_STATE_SLAB_COLUMNS * 8};
    qsort(runs, (size_t)n, sizeof *runs, by_place);
    for (int64_t i = 0; i < n; i++)
        if (kept > 0 && hy3_span_end(runs[kept - 1]) == runs[i].first)
            runs[kept - 1].count += runs[i].count;
        else
            runs[kept++] = runs[i];
    *out = runs;
    *count = kept;
    return HY3_OK;
}

static hy3_status seal(struct hy3_state_layout *l, int image, const struct hy3_state_index *index)
{
    hy3_status status = HY3_OK;
    struct hy3_span *runs = NULL;
    int64_t count;

    l->file_bytes = index->file_bytes;
    HY3_TRY_DONE(list_runs(index, &runs, &count));
    HY3_TRY_DONE(hy3_state_seal_create(image, l->path, runs, count, index->file_bytes, &l->seal));
done:
    hy3_free(runs);
    return status;
}

/* A file for HDF5, which opens nothing without a name, in memory; where that is full or absent, in
 * the system's directory for temporary files. */
static hy3_status create_temporary(const char *of, char *name, int *file)
{
    const char *tmp = getenv("TMPDIR"), *const places[] = {"/dev/shm", tmp ? tmp : "/tmp", "/tmp"};
    struct statvfs disk;

    for (size_t i = 0; i < sizeof places / sizeof *places && *file < 0; i++) {
        if (statvfs(places[i], &disk) != 0 ||
            (double)disk.f_bavail * (double)disk.f_frsize < IMAGE_ROOM)
            continue;
        HY3_TRY(hy3_path_format(name, HY3_PATH_MAX, "%s/hy3-state-XXXXXX", places[i]));
        *file = mkostemp(name, O_CLOEXEC);
    }
    if (*file < 0)
        HY3_FAIL(HY3_EIO,
                 "cannot lay out '%s': neither /dev/shm nor TMPDIR nor /tmp can be written and has "
                 "%d MB left",
                 of, IMAGE_ROOM >> 20);
    return HY3_OK;
}

static hy3_status create(struct hy3_state_layout *l, struct hy3_state_index *index)
{
    hy3_status status = HY3_OK;
    char name[HY3_PATH_MAX] = "";
    int image = -1;

    HY3_TRY_DONE(create_temporary(l->path, name, &image));
    HY3_TRY_DONE(create_image(name, l->path, index));
    index->file_bytes = (int64_t)lseek(image, 0, SEEK_END);
    HY3_TRY_DONE(hy3_file_claim(l->fd, index->file_bytes, l->path));
    HY3_TRY_DONE(walk(l, image, copy));
    HY3_TRY_DONE(complete_image(name, l->path));
    HY3_TRY_DONE(walk(l, image, compare));
    HY3_TRY_DONE(seal(l, image, index));
done:
    if (image >= 0) {
        close(image);
        unlink(name);
    }
    return status;
}

hy3_status hy3_state_layout_create(const char *path, struct hy3_state_index *index,
                                   struct hy3_state_layout **out)
{
    hy3_status status = HY3_OK;
    struct hy3_state_layout *l = NULL;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&l, 1, sizeof *l));
    l->path = path;
    HY3_TRY_DONE(hy3_file_create(path, &l->fd));
    HY3_TRY_DONE(hy3_file_claim(l->fd, data_bytes(index), path));
    hy3_hdf5_quiet();
    HY3_TRY_DONE(create(l, index));
    close(l->fd);
    l->fd = -1;
    *out = HY3_TAKE(l);
done:
    hy3_state_layout_free(l);
    return status;
}

hy3_status hy3_state_layout_complete(const struct hy3_state_layout *l)
{
    hy3_status status = HY3_OK;
    int fd = open(l->path, O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        HY3_FAIL_DONE(HY3_EIO, "cannot open '%s': %s", l->path, strerror(errno));
    for (size_t i = 0; i < l->mark_bytes; i++)
        HY3_TRY_DONE(hy3_file_write_at(fd, &l->mark[i].value, 1, l->mark[i].offset, l->path));
    HY3_TRY_DONE(hy3_file_write_at(fd, l->seal.bytes, l->seal.size, l->file_bytes, l->path));
    HY3_TRY_DONE(hy3_file_flush(fd, l->path));
done:
    if (fd >= 0)
        close(fd);
    return status;
}

void hy3_state_layout_free(struct hy3_state_layout *l)
{
    if (!l)
        return;
    if (l->fd >= 0)
        close(l->fd);
    hy3_free(l->seal.bytes);
    hy3_free(l->mark);
    hy3_free(l);
}
