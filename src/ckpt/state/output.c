/* SPDX-License-Identifier: Apache-2.0 */
/* output.c - independent writes of hyperslabs into datasets that have their place. */
#include "ckpt/state/output.h"

#include "base/file.h"
#include "base/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WRITTEN_EARLY = 1 << 20 }; /* bytes from which write-back is started at once */

struct hy3_state_output {
    char path[HY3_PATH_MAX];
    hid_t file;
    int fd;      /* the same file, for what HDF5 does not offer */
    int nowhere; /* as long as the file, and empty */
    hid_t set, space;
    int64_t offset; /* of the open dataset */
    char name[HY3_PARAM_NAME + 16];
};

hy3_status hy3_state_output_create(const char *path, int64_t bytes, struct hy3_state_output **out)
{
    hy3_status status = HY3_OK;
    struct hy3_state_output *o = NULL;
    struct stat info;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&o, 1, sizeof *o));
    o->fd = o->nowhere = -1;
    o->file = o->set = o->space = -1;
    HY3_TRY_DONE(hy3_path_format(o->path, sizeof o->path, "%s", path));
    HY3_TRY_DONE(hy3_file_reopen(path, &o->fd));
    if (fstat(o->fd, &info) != 0)
        HY3_FAIL_DONE(HY3_EIO, "cannot look at '%s': %s", path, strerror(errno));
    if (info.st_size != (off_t)bytes)
        HY3_FAIL_DONE(HY3_EIO,
                      "'%s' has %lld bytes here, %lld on rank 0: is it a shared directory?", path,
                      (long long)info.st_size, (long long)bytes);
    HY3_TRY_DONE(hy3_hdf5_nowhere(path, bytes, &o->nowhere));
    *out = HY3_TAKE(o);
done:
    hy3_state_output_free(o);
    return status;
}

void hy3_state_output_free(struct hy3_state_output *o)
{
    if (!o)
        return;
    if (o->fd >= 0)
        close(o->fd);
    if (o->nowhere >= 0)
        close(o->nowhere);
    hy3_free(o);
}

hy3_status hy3_state_output_open(struct hy3_state_output *o, MPI_Comm comm)
{
    hy3_status status = HY3_OK;
    char name[HY3_PATH_MAX + 8];
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);

    hy3_hdf5_quiet();
    H5Pset_fapl_mpio(access, comm, MPI_INFO_NULL);
    status = hy3_hdf5_shared_name(o->path, name, sizeof name);
    if (status == HY3_OK && (o->file = H5Fopen(name, H5F_ACC_RDWR, access)) < 0)
        status = hy3_fail(HY3_EIO, __FILE__, __LINE__, "cannot open '%s' on all ranks: %s", o->path,
                          hy3_hdf5_text());
    H5Pclose(access);
    return status;
}

static void close_set(struct hy3_state_output *o)
{
    if (o->space >= 0)
        H5Sclose(o->space);
    if (o->set >= 0)
        H5Dclose(o->set);
    o->space = o->set = -1;
}

/* H5Fclose writes the superblock once more, as it is. A disk that refuses this, or the close
 * itself, is fatal: rank 0 leaves before the others, which wait for it in MPI_File_close; or a file
 * stays half closed and crashes MPI_Finalize (both seen with HDF5 1.10.8 on MPICH 4.0.2). All that
 * is wanted is flushed by now, so the end happens elsewhere. */
hy3_status hy3_state_output_close(struct hy3_state_output *o)
{
    hy3_status status = HY3_OK;

    if (o->file < 0)
        return HY3_OK;
    close_set(o);
    hy3_hdf5_cut_off(o->path, o->nowhere);
    if (H5Fclose(o->file) < 0)
        status = hy3_hdf5_fail("close", NULL, o->path);
    o->file = -1;
    return status;
}

static hy3_status open_set(struct hy3_state_output *o, const char *name)
{
    if (o->set >= 0 && strcmp(o->name, name) == 0)
        return HY3_OK;
    close_set(o);
    o->set = H5Dopen2(o->file, name, H5P_DEFAULT);
    o->space = o->set < 0 ? -1 : H5Dget_space(o->set);
    if (o->space < 0)
        return hy3_hdf5_fail("open", name, o->path);
    o->offset = (int64_t)H5Dget_offset(o->set);
    snprintf(o->name, sizeof o->name, "%s", name);
    return HY3_OK;
}

/* Elements from `at` on, at most up to `end`, that are one block of the tensor: a part of a row, or
 * whole rows, or whole planes. */
static int64_t block_at(const struct hy3_state_tensor *t, int64_t at, int64_t end, hsize_t start[3],
                        hsize_t size[3])
{
    int64_t step = t->count, count = 0; /* elements between neighbours; of the block */

    for (int64_t d = 0; d < t->dims; d++) {
        int64_t left;

        step /= t->shape[d];
        start[d] = (hsize_t)(at / step % t->shape[d]);
        size[d] = count > 0 ? (hsize_t)t->shape[d] : 1;
        if (count > 0 || at % step != 0 || end - at < step)
            continue;
        left = t->shape[d] - (int64_t)start[d];
        size[d] = (hsize_t)((end - at) / step < left ? (end - at) / step : left);
        count = (int64_t)size[d] * step;
    }
    return count;
}

static hy3_status write_block(struct hy3_state_output *o, hid_t type, const hsize_t *start,
                              const hsize_t *size, hsize_t count, const void *values)
{
    hy3_status status = HY3_OK;
    hid_t memory = H5Screate_simple(1, &count, NULL);

    if (H5Sselect_hyperslab(o->space, H5S_SELECT_SET, start, NULL, size, NULL) < 0 ||
        H5Dwrite(o->set, type, memory, o->space, H5P_DEFAULT, values) < 0)
        status = hy3_hdf5_fail("write", o->name, o->path);
    H5Sclose(memory);
    return status;
}

hy3_status hy3_state_output_write(struct hy3_state_output *o, const struct hy3_state_tensor *tensor,
                                  const struct hy3_state_slab *slab, const float *values)
{
    int64_t first = (int64_t)slab->first, end = first + (int64_t)slab->count;
    int64_t bytes = (int64_t)(slab->count * sizeof *values);
    char name[sizeof o->name];
    hsize_t start[3], size[3];

    snprintf(name, sizeof name, "%s/%s", hy3_state_field_name((enum hy3_field)slab->field),
             tensor->name);
    HY3_TRY(open_set(o, name));
    for (int64_t at = first, n; at < end; at += n) {
        n = block_at(tensor, at, end, start, size);
        HY3_TRY(write_block(o, H5T_NATIVE_FLOAT, start, size, (hsize_t)n, values + at - first));
    }
    if (bytes >= WRITTEN_EARLY) /* only begun: an error of it comes from fsync */
        sync_file_range(o->fd, o->offset + first * (int64_t)sizeof *values, bytes,
                        SYNC_FILE_RANGE_WRITE);
    return HY3_OK;
}

hy3_status hy3_state_output_checksums(struct hy3_state_output *o, struct hy3_span rows,
                                      const struct hy3_state_slab *slabs)
{
    const hsize_t columns = sizeof *slabs / sizeof slabs->checksum;
    const hsize_t start[2] = {(hsize_t)rows.first, 0}, size[2] = {(hsize_t)rows.count, columns};

    if (rows.count == 0)
        return HY3_OK;
    HY3_TRY(open_set(o, "checksums"));
    return write_block(o, H5T_NATIVE_UINT64, start, size, size[0] * columns, slabs);
}

hy3_status hy3_state_output_flush(struct hy3_state_output *o)
{
    return hy3_file_flush(o->fd, o->path);
}
