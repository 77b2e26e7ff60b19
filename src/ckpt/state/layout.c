/* SPDX-License-Identifier: Apache-2.0 */
/* layout.c - groups, datasets and attributes. */
#include "ckpt/state/layout.h"

#include "base/file.h"
#include "base/hdf5_image.h"
#include "base/memory.h"

#include <unistd.h>

struct hy3_state_layout {
    const char *path;
    struct hy3_hdf5_image *image;
};

static hy3_status create_field(hid_t file, const char *path, struct hy3_state_index *index,
                               enum hy3_field field)
{
    hy3_status status = HY3_OK;
    hid_t creation = H5Pcreate(H5P_GROUP_CREATE), group, set = -1;

    H5Pset_obj_track_times(creation, false);
    if ((group =
             H5Gcreate2(file, hy3_state_field_name(field), H5P_DEFAULT, creation, H5P_DEFAULT)) < 0)
        status = hy3_hdf5_fail("create", hy3_state_field_name(field), path);
    H5Pclose(creation);
    HY3_TRY(status);
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

static hy3_status lay_out(hid_t file, const char *path, struct hy3_state_index *index)
{
    int64_t version = HY3_STATE_VERSION;

    HY3_TRY(hy3_hdf5_put_number(file, "version", H5T_NATIVE_INT64, &version, path));
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

/* The places of all values [tensors * HY3_FIELDS + 1 at most]; how many. */
static int64_t list_values(const struct hy3_state_index *index, struct hy3_span *out)
{
    int64_t n = 0;

    for (int64_t i = 0; i < index->tensor_count; i++)
        for (int field = 0; field < HY3_FIELDS; field++)
            out[n++] = (struct hy3_span){index->tensors[i].offset[field],
                                         index->tensors[i].count * (int64_t)sizeof(float)};
    if (index->slab_count > 0)
        out[n++] =
            (struct hy3_span){index->slabs_offset, index->slab_count * HY3_STATE_SLAB_COLUMNS * 8};
    return n;
}

/* Ends the laying out, once the places of the values are known. */
static hy3_status store(struct hy3_state_layout *l, int fd, struct hy3_state_index *index)
{
    hy3_status status = HY3_OK;
    struct hy3_span *values = NULL;

    HY3_TRY_DONE(
        hy3_alloc(&values, (size_t)(index->tensor_count * HY3_FIELDS + 1), sizeof *values));
    HY3_TRY_DONE(
        hy3_hdf5_image_store(l->image, fd, values, list_values(index, values), &index->file_bytes));
done:
    hy3_free(values);
    return status;
}

hy3_status hy3_state_layout_create(const char *path, bool is_private, struct hy3_state_index *index,
                                   struct hy3_state_layout **out)
{
    hy3_status status = HY3_OK;
    struct hy3_state_layout *l = NULL;
    hid_t file;
    int fd = -1;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&l, 1, sizeof *l));
    l->path = path;
    HY3_TRY_DONE(is_private ? hy3_file_create_private(path, &fd) : hy3_file_create(path, &fd));
    HY3_TRY_DONE(hy3_file_claim(fd, data_bytes(index), path));
    HY3_TRY_DONE(hy3_hdf5_image_create(path, &l->image, &file));
    HY3_TRY_DONE(lay_out(file, path, index));
    HY3_TRY_DONE(store(l, fd, index));
    *out = HY3_TAKE(l);
done:
    if (fd >= 0)
        close(fd);
    hy3_state_layout_free(l);
    return status;
}

hy3_status hy3_state_layout_complete(const struct hy3_state_layout *l)
{
    hy3_status status = HY3_OK;
    int fd = -1;

    HY3_TRY_DONE(hy3_file_reopen(l->path, &fd));
    HY3_TRY_DONE(hy3_hdf5_image_complete(l->image, fd));
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
    hy3_hdf5_image_free(l->image);
    hy3_free(l);
}
