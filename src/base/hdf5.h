/* SPDX-License-Identifier: Apache-2.0 */
/* hdf5.h - attributes and contiguous data sets of HDF5; the reasons of its failures in our words.
 *
 * What is read is checked before it is read: class, size and number of elements of an attribute,
 * type, layout and place of a data set. Texts of reading say what is wrong and not in which file,
 * which the caller knows. */
#pragma once

#include "base/error.h"

#include <hdf5.h>

/* Local. Keeps HDF5 from printing: its texts go into ours. Also from following links into other
 * files, and from loading filters of the environment. */
void hy3_hdf5_quiet(void);

/* Local. Opens a file for reading: a regular one, not a FIFO or a device, which would block; links
 * of HDF5 into other files are not followed. The caller closes *file (hy3_hdf5_close), which is -1
 * after an error. Errors: HY3_EIO, HY3_EFORMAT. */
hy3_status hy3_hdf5_open_file(const char *path, hid_t *file);

/* Local. Closes a file that was only read, even where the disk fails; -1: nothing. */
void hy3_hdf5_close(hid_t file);

/* Local. The name under which all ranks open a file together: MPI-IO takes what stands before a
 * colon for the kind of file system, so one of its own goes before a path with a colon. */
hy3_status hy3_hdf5_shared_name(const char *path, char *out, size_t size);

/* Local. Why HDF5 failed last, in words of ours or the system's: its own are for programmers. Valid
 * until the next call. */
const char *hy3_hdf5_text(void);

/* Local. HY3_EIO: "cannot VERB 'NAME' of 'PATH'", and the reason. name: NULL for the file. */
hy3_status hy3_hdf5_fail(const char *verb, const char *name, const char *path);

/* Local. To be called before MPI_Init: HDF5 then leaves at the end what is open as it is, instead
 * of closing it while MPI ends, which crashes where a disk has failed (seen with 1.10.8). */
void hy3_hdf5_begin(void);

/* Local. Closes a file of the default driver that was only read, or whose content no longer
 * matters, because writing it has failed: what HDF5 still holds goes nowhere. H5Fclose would fail
 * for the same reason as the write, leave the file half open, and crash when the library is torn
 * down (seen with 1.10.8). */
void hy3_hdf5_discard(hid_t file);

/* Local. Makes all descriptors of this process for the file `path` those of an empty one, nowhere,
 * so that H5Fclose reaches no disk that can refuse: MPI-IO has such descriptors, which no interface
 * gives. What matters must be flushed before. */
void hy3_hdf5_cut_off(const char *path, int nowhere);

/* Local. An empty file in memory for that, as long as the real one: to be had before it is needed.
 * The caller closes *nowhere, which may be -1 after an error. Errors: HY3_EIO. */
hy3_status hy3_hdf5_nowhere(const char *path, int64_t bytes, int *nowhere);

/* Local. One number of 64 bits; type: H5T_NATIVE_INT64, _UINT64 or _DOUBLE, as `out` has it.
 * Errors: HY3_EFORMAT. */
hy3_status hy3_hdf5_get_number(hid_t object, const char *name, hid_t type, void *out);

/* Local. A text of at most `limit` bytes, "" if there is no such attribute. The caller owns *out.
 * Errors: HY3_EFORMAT. */
hy3_status hy3_hdf5_get_text(hid_t object, const char *name, size_t limit, char **out);

/* Local. Creates an attribute of one number, little-endian in the file; type: as above. path: of
 * the file, for the message. Errors: HY3_EIO. */
hy3_status hy3_hdf5_put_number(hid_t object, const char *name, hid_t type, const void *value,
                               const char *path);
hy3_status hy3_hdf5_put_text(hid_t object, const char *name, const char *text, const char *path);

enum { HY3_HDF5_DIMS = 3 };

/* A contiguous data set: its shape, and where its elements lie in the file. */
struct hy3_hdf5_place {
    int dims;
    int64_t shape[HY3_HDF5_DIMS], count; /* count: of all elements */
    int64_t offset;                      /* bytes */
};

/* Local. Opens a data set of exactly this type (H5T_C_S1: of texts of any fixed length) that is one
 * piece of a file of `file_bytes` bytes. The caller closes *set (H5Dclose), which is -1 after an
 * error. Errors: HY3_EFORMAT. */
hy3_status hy3_hdf5_open_set(hid_t group, const char *name, hid_t type, int64_t file_bytes,
                             struct hy3_hdf5_place *place, hid_t *set);

/* Local, or collective for a file that all ranks have open. Creates a contiguous data set whose
 * space is allocated at once and not filled: its place is final. place: dims and shape are given,
 * count and offset are set. The caller closes *set, which is -1 after an error. Errors: HY3_EIO. */
hy3_status hy3_hdf5_create_set(hid_t group, const char *name, hid_t type, const char *path,
                               struct hy3_hdf5_place *place, hid_t *set);
