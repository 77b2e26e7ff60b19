/* SPDX-License-Identifier: Apache-2.0 */
/* hdf5.c - the reason in the innermost complaint; one function for all attributes that are read. */
#include "base/hdf5.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void hy3_hdf5_begin(void)
{
    H5dont_atexit();
    H5open(); /* with MPI begun it would ask MPI to be told of its end */
}

void hy3_hdf5_quiet(void)
{
    H5open();
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    H5PLset_loading_state(0);
    if (H5Lis_registered(H5L_TYPE_EXTERNAL) > 0)
        H5Lunregister(H5L_TYPE_EXTERNAL);
}

enum { TEXT = 1000 };

static herr_t keep_innermost(unsigned n, const H5E_error2_t *entry, void *text)
{
    if (n == 0 && entry->desc)
        snprintf(text, TEXT, "%s", entry->desc);
    return 0;
}

/* What the system said, which stands in the texts of HDF5 as a number and in those of MPI-IO as
 * words; 0: nothing. */
static int find_errno(const char *text)
{
    static const int known[] = {ENOSPC, EDQUOT, EIO,    EROFS,  EACCES, EPERM,  EFBIG, ENOENT,
                                ENOMEM, EMFILE, ENFILE, ESTALE, EAGAIN, EISDIR, EBADF, EINTR};
    const char *number = strstr(text, "errno = ");

    if (number)
        return (int)strtol(number + strlen("errno = "), NULL, 10);
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strstr(text, strerror(known[i])))
            return known[i];
    return 0;
}

const char *hy3_hdf5_text(void)
{
    char text[TEXT] = "";
    int system;

    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, keep_innermost, text);
    hy3_log(HY3_LOG_DEBUG, "HDF5: %s", text);
    if ((system = find_errno(text)) > 0)
        return strerror(system);
    if (strstr(text, "signature not found"))
        return "it is not in the format of HDF5";
    if (strstr(text, "truncated file") || strstr(text, "addr overflow"))
        return "it is cut short";
    return "an error inside HDF5 (HY3_LOG=debug shows its words)";
}

hy3_status hy3_hdf5_shared_name(const char *path, char *out, size_t size)
{
    return hy3_path_format(out, size, "%s%s", strchr(path, ':') ? "ufs:" : "", path);
}

hy3_status hy3_hdf5_fail(const char *verb, const char *name, const char *path)
{
    if (!name)
        HY3_FAIL(HY3_EIO, "cannot %s '%s': %s", verb, path, hy3_hdf5_text());
    HY3_FAIL(HY3_EIO, "cannot %s '%s' of '%s': %s", verb, name, path, hy3_hdf5_text());
}

void hy3_hdf5_discard(hid_t file)
{
    void *handle = NULL;
    int nowhere = memfd_create("discarded", MFD_CLOEXEC);

    if (nowhere >= 0 && H5Fget_vfd_handle(file, H5P_DEFAULT, &handle) >= 0 && handle)
        dup2(nowhere, *(const int *)handle);
    if (nowhere >= 0)
        close(nowhere);
    H5Fclose(file);
}

hy3_status hy3_hdf5_open_file(const char *path, hid_t *file)
{
    int fd;

    hy3_hdf5_quiet();
    *file = -1;
    HY3_TRY(hy3_file_open(path, &fd));
    *file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
    close(fd);
    if (*file < 0)
        HY3_FAIL(HY3_EFORMAT, "it cannot be read: %s", hy3_hdf5_text());
    return HY3_OK;
}

void hy3_hdf5_close(hid_t file)
{
    if (file >= 0)
        hy3_hdf5_discard(file);
}

void hy3_hdf5_cut_off(const char *path, int nowhere)
{
    DIR *all = opendir("/proc/self/fd");
    const struct dirent *entry;
    struct stat own, other;

    while (all && stat(path, &own) == 0 && (entry = readdir(all))) {
        int fd = (int)strtol(entry->d_name, NULL, 10);

        if (entry->d_name[0] != '.' && fstat(fd, &other) == 0 && other.st_dev == own.st_dev &&
            other.st_ino == own.st_ino)
            dup2(nowhere, fd);
    }
    if (all)
        closedir(all);
}

hy3_status hy3_hdf5_nowhere(const char *path, int64_t bytes, int *nowhere)
{
    if ((*nowhere = memfd_create("cut off", MFD_CLOEXEC)) < 0 ||
        ftruncate(*nowhere, (off_t)bytes) != 0)
        HY3_FAIL(HY3_EIO, "cannot prepare the end of '%s': %s", path, strerror(errno));
    return HY3_OK;
}

/* The one place where attributes are read: one element of the class and size of the type that `out`
 * has in memory. what: the same in words. */
static hy3_status read_attribute(hid_t attribute, const char *name, hid_t memory, const char *what,
                                 void *out)
{
    hid_t type = H5Aget_type(attribute), space = H5Aget_space(attribute);
    bool good = type >= 0 && space >= 0 && H5Tget_class(type) == H5Tget_class(memory) &&
                H5Tget_size(type) == H5Tget_size(memory) && H5Tis_variable_str(type) == 0 &&
                H5Sget_simple_extent_npoints(space) == 1 && H5Aread(attribute, memory, out) >= 0;

    if (space >= 0)
        H5Sclose(space);
    if (type >= 0)
        H5Tclose(type);
    if (!good)
        HY3_FAIL(HY3_EFORMAT, "its attribute '%s' is not %s", name, what);
    return HY3_OK;
}

hy3_status hy3_hdf5_get_number(hid_t object, const char *name, hid_t type, void *out)
{
    const char *what =
        H5Tget_class(type) == H5T_FLOAT ? "one 64-bit real number" : "one 64-bit integer";
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT);
    hy3_status status;

    if (attribute < 0)
        HY3_FAIL(HY3_EFORMAT, "it has no attribute '%s'", name);
    status = read_attribute(attribute, name, type, what, out);
    H5Aclose(attribute);
    return status;
}

hy3_status hy3_hdf5_get_text(hid_t object, const char *name, size_t limit, char **out)
{
    hy3_status status = HY3_OK;
    hid_t attribute = H5Aopen(object, name, H5P_DEFAULT), type = -1;
    char *text = NULL;

    *out = NULL;
    if (attribute < 0)
        return hy3_strdup("", out);
    type = H5Aget_type(attribute);
    if (type < 0 || H5Tget_class(type) != H5T_STRING || H5Tget_size(type) > limit)
        HY3_FAIL_DONE(HY3_EFORMAT, "its attribute '%s' is not a text of at most %zu bytes", name,
                      limit);
    HY3_TRY_DONE(hy3_alloc(&text, H5Tget_size(type) + 1, 1));
    HY3_TRY_DONE(read_attribute(attribute, name, type, "one text", text));
    *out = HY3_TAKE(text);
done:
    hy3_free(text);
    if (type >= 0)
        H5Tclose(type);
    H5Aclose(attribute);
    return status;
}

static hy3_status put_attribute(hid_t object, const char *name, hid_t type, hid_t memory,
                                const void *value, const char *path)
{
    hy3_status status = HY3_OK;
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, name, type, space, H5P_DEFAULT, H5P_DEFAULT);

    if (attribute < 0 || H5Awrite(attribute, memory, value) < 0)
        status = hy3_hdf5_fail("write", name, path);
    if (attribute >= 0)
        H5Aclose(attribute);
    H5Sclose(space);
    return status;
}

hy3_status hy3_hdf5_put_number(hid_t object, const char *name, hid_t type, const void *value,
                               const char *path)
{
    hid_t in_file = H5Tget_class(type) == H5T_FLOAT         ? H5T_IEEE_F64LE
                    : H5Tequal(type, H5T_NATIVE_UINT64) > 0 ? H5T_STD_U64LE
                                                            : H5T_STD_I64LE;

    return put_attribute(object, name, in_file, type, value, path);
}

hy3_status hy3_hdf5_put_text(hid_t object, const char *name, const char *text, const char *path)
{
    hid_t type = H5Tcopy(H5T_C_S1);
    hy3_status status;

    H5Tset_size(type, strlen(text) + 1);
    H5Tset_cset(type, H5T_CSET_UTF8);
    status = put_attribute(object, name, type, type, text, path);
    H5Tclose(type);
    return status;
}

/* The shape of a data set, and where it lies; whether it is one piece within the file. */
static bool locate(hid_t set, hid_t space, int64_t file_bytes, struct hy3_hdf5_place *place)
{
    hid_t layout = H5Dget_create_plist(set), type = H5Dget_type(set);
    bool is_one_piece = layout >= 0 && H5Pget_layout(layout) == H5D_CONTIGUOUS &&
                        H5Pget_external_count(layout) == 0;
    int64_t bytes = type < 0 ? 0 : (int64_t)H5Tget_size(type);
    haddr_t offset = H5Dget_offset(set);
    hsize_t shape[HY3_HDF5_DIMS];

    if (layout >= 0)
        H5Pclose(layout);
    if (type >= 0)
        H5Tclose(type);
    place->dims = H5Sget_simple_extent_ndims(space);
    if (!is_one_piece || place->dims < 1 || place->dims > HY3_HDF5_DIMS || offset == HADDR_UNDEF)
        return false;
    H5Sget_simple_extent_dims(space, shape, NULL);
    place->count = 1;
    for (int i = 0; i < place->dims; i++) {
        place->shape[i] = (int64_t)shape[i];
        if (place->shape[i] < 0 ||
            __builtin_mul_overflow(place->count, place->shape[i], &place->count))
            return false;
    }
    place->offset = (int64_t)offset;
    return bytes > 0 && place->offset >= 0 && place->count <= file_bytes / bytes &&
           place->offset <= file_bytes - place->count * bytes;
}

static bool is_of_type(hid_t is, hid_t wanted)
{
    if (H5Tequal(wanted, H5T_C_S1) > 0)
        return H5Tget_class(is) == H5T_STRING && H5Tis_variable_str(is) == 0;
    return H5Tequal(is, wanted) > 0;
}

hy3_status hy3_hdf5_open_set(hid_t group, const char *name, hid_t type, int64_t file_bytes,
                             struct hy3_hdf5_place *place, hid_t *set)
{
    hy3_status status = HY3_OK;
    hid_t is = -1, space = -1;

    *place = (struct hy3_hdf5_place){0};
    if ((*set = H5Dopen2(group, name, H5P_DEFAULT)) < 0)
        HY3_FAIL_DONE(HY3_EFORMAT, "it has no data set '%.100s'", name);
    is = H5Dget_type(*set);
    space = H5Dget_space(*set);
    if (is < 0 || space < 0 || !is_of_type(is, type))
        HY3_FAIL_DONE(HY3_EFORMAT, "its data set '%.100s' has another type", name);
    if (!locate(*set, space, file_bytes, place))
        HY3_FAIL_DONE(HY3_EFORMAT, "its data set '%.100s' is not one piece within the file", name);
done:
    if (space >= 0)
        H5Sclose(space);
    if (is >= 0)
        H5Tclose(is);
    if (status != HY3_OK && *set >= 0) {
        H5Dclose(*set);
        *set = -1;
    }
    return status;
}

hy3_status hy3_hdf5_create_set(hid_t group, const char *name, hid_t type, const char *path,
                               struct hy3_hdf5_place *place, hid_t *set)
{
    hy3_status status = HY3_OK;
    hsize_t shape[HY3_HDF5_DIMS];
    hid_t space, layout = H5Pcreate(H5P_DATASET_CREATE);

    place->count = 1;
    for (int i = 0; i < place->dims; i++) {
        shape[i] = (hsize_t)place->shape[i];
        place->count *= place->shape[i];
    }
    space = H5Screate_simple(place->dims, shape, NULL);
    H5Pset_layout(layout, H5D_CONTIGUOUS);
    H5Pset_alloc_time(layout, H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(layout, H5D_FILL_TIME_NEVER);
    H5Pset_obj_track_times(layout, false);
    *set = H5Dcreate2(group, name, type, space, H5P_DEFAULT, layout, H5P_DEFAULT);
    if (*set < 0)
        status = hy3_hdf5_fail("create", name, path); /* before another call forgets why */
    H5Pclose(layout);
    H5Sclose(space);
    HY3_TRY(status);
    if (H5Dget_offset(*set) == HADDR_UNDEF) {
        H5Dclose(*set);
        *set = -1;
        HY3_FAIL(HY3_EIO, "HDF5 gives '%s' of '%s' no place", name, path);
    }
    place->offset = (int64_t)H5Dget_offset(*set);
    return HY3_OK;
}
