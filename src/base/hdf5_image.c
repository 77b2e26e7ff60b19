/* SPDX-License-Identifier: Apache-2.0 */
/* hdf5_image.c - a temporary file in memory, copied and compared. */
#include "base/hdf5_image.h"

#include "base/file.h"
#include "base/hdf5_seal.h"
#include "base/memory.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    PIECE = 1 << 16,      /* bytes copied or compared at a time */
    IMAGE_ROOM = 64 << 20 /* bytes: more than the metadata of any file */
};

/* A byte that differs in the complete file. */
struct changed {
    int64_t offset;
    char value;
};

struct hy3_hdf5_image {
    const char *path;
    char name[HY3_PATH_MAX]; /* of the temporary file */
    int fd, to;              /* of it; of the file on disk, while it is stored */
    hid_t file;              /* while it is laid out */
    struct changed *mark;    /* [mark_bytes] */
    size_t mark_bytes, capacity;
    int64_t bytes;             /* where the seal is put */
    struct hy3_hdf5_seal seal; /* of the complete file */
};

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
        HY3_TRY(hy3_path_format(name, HY3_PATH_MAX, "%s/hy3-image-XXXXXX", places[i]));
        *file = mkostemp(name, O_CLOEXEC);
    }
    if (*file < 0)
        HY3_FAIL(HY3_EIO,
                 "cannot lay out '%s': neither /dev/shm nor TMPDIR nor /tmp can be written and has "
                 "%d MB left",
                 of, IMAGE_ROOM >> 20);
    return HY3_OK;
}

/* Metadata has checksums, and opening a file changes nothing in it (formats from 1.10 on mark it as
 * being written). */
static hid_t file_format(void)
{
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);

    H5Pset_libver_bounds(access, H5F_LIBVER_V18, H5F_LIBVER_V18);
    return access;
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

typedef hy3_status (*visit)(struct hy3_hdf5_image *image, const char *data, size_t size,
                            int64_t offset);

static hy3_status copy(struct hy3_hdf5_image *image, const char *data, size_t size, int64_t offset)
{
    return hy3_file_write_at(image->to, data, size, offset, image->path);
}

/* Notes where the image has changed since it was copied. */
static hy3_status compare(struct hy3_hdf5_image *image, const char *data, size_t size,
                          int64_t offset)
{
    char written[PIECE];

    HY3_TRY(hy3_file_read_at(image->to, written, size, offset, image->path));
    for (size_t i = 0; i < size; i++) {
        if (data[i] == written[i])
            continue;
        HY3_TRY(
            hy3_grow(&image->mark, &image->capacity, image->mark_bytes + 1, sizeof *image->mark));
        image->mark[image->mark_bytes++] = (struct changed){offset + (int64_t)i, data[i]};
    }
    return HY3_OK;
}

/* Calls `each` for all that HDF5 has written into the image; the rest are holes. */
static hy3_status walk(struct hy3_hdf5_image *image, visit each)
{
    char data[PIECE];
    off_t at = 0, end;

    while ((at = lseek(image->fd, at, SEEK_DATA)) >= 0 &&
           (end = lseek(image->fd, at, SEEK_HOLE)) > at)
        for (size_t size; at < end; at += (off_t)size) {
            size = end - at < PIECE ? (size_t)(end - at) : PIECE;
            HY3_TRY(hy3_file_read_at(image->fd, data, size, at, image->path));
            HY3_TRY(each(image, data, size, at));
        }
    return HY3_OK;
}

hy3_status hy3_hdf5_image_create(const char *path, struct hy3_hdf5_image **out, hid_t *file)
{
    hy3_status status = HY3_OK;
    const int64_t complete = 0; /* has its place already, so that the mark needs no more space */
    struct hy3_hdf5_image *image = NULL;
    hid_t access = -1, creation = -1;

    *out = NULL;
    hy3_hdf5_quiet();
    HY3_TRY_DONE(hy3_alloc(&image, 1, sizeof *image));
    image->path = path;
    image->fd = image->to = -1;
    image->file = -1;
    HY3_TRY_DONE(create_temporary(path, image->name, &image->fd));
    access = file_format();
    creation = H5Pcreate(H5P_FILE_CREATE);
    H5Pset_obj_track_times(creation, false); /* or the same input does not give the same bytes */
    if ((image->file = H5Fcreate(image->name, H5F_ACC_TRUNC, creation, access)) < 0) {
        status = hy3_hdf5_fail("lay out", NULL, path);
        goto done;
    }
    HY3_TRY_DONE(hy3_hdf5_put_number(image->file, "complete", H5T_NATIVE_INT64, &complete, path));
    *file = image->file;
    *out = HY3_TAKE(image);
done:
    if (creation >= 0)
        H5Pclose(creation);
    if (access >= 0)
        H5Pclose(access);
    hy3_hdf5_image_free(image);
    return status;
}

hy3_status hy3_hdf5_image_store(struct hy3_hdf5_image *image, int fd, struct hy3_span *values,
                                int64_t count, int64_t *bytes)
{
    hid_t file = image->file;

    image->file = -1;
    image->to = fd;
    HY3_TRY(flush_and_close(file, image->path));
    *bytes = image->bytes = (int64_t)lseek(image->fd, 0, SEEK_END);
    HY3_TRY(hy3_file_claim(fd, *bytes, image->path));
    HY3_TRY(walk(image, copy));
    HY3_TRY(complete_image(image->name, image->path));
    HY3_TRY(walk(image, compare));
    return hy3_hdf5_seal_create(image->fd, image->path, values, count, *bytes, &image->seal);
}

hy3_status hy3_hdf5_image_complete(const struct hy3_hdf5_image *image, int fd)
{
    for (size_t i = 0; i < image->mark_bytes; i++)
        HY3_TRY(
            hy3_file_write_at(fd, &image->mark[i].value, 1, image->mark[i].offset, image->path));
    return hy3_file_write_at(fd, image->seal.bytes, image->seal.size, image->bytes, image->path);
}

void hy3_hdf5_image_free(struct hy3_hdf5_image *image)
{
    if (!image)
        return;
    if (image->file >= 0)
        hy3_hdf5_discard(image->file);
    if (image->fd >= 0) {
        close(image->fd);
        unlink(image->name);
    }
    hy3_free(image->seal.bytes);
    hy3_free(image->mark);
    hy3_free(image);
}
