/* SPDX-License-Identifier: Apache-2.0 */
/* hdf5_image.h - a new HDF5 file is laid out in memory by one rank: all its metadata, and space for
 * values that others write later.
 *
 * The bytes that HDF5 wrote are copied to the disk: a disk that fails leaves HDF5 1.10 half open,
 * to crash in MPI_Finalize, and metadata that several ranks write lets them wait for each other for
 * ever when one fails (both seen). The attribute `complete` of the root, 0 so far, is set in memory
 * as well; the bytes that it changes (HDF5's checksums among them) are kept, to be written at the
 * end, with the seal (base/hdf5_seal.h). */
#pragma once

#include "base/hdf5.h"
#include "base/span.h"

struct hy3_hdf5_image; /* opaque */

/* Local. An empty file in memory with complete = 0; *file is HDF5's handle, for what is to be in
 * it. path: of the file on disk, for messages; kept. The caller owns *out (hy3_hdf5_image_free),
 * the handle belongs to it. Errors: HY3_EIO. */
hy3_status hy3_hdf5_image_create(const char *path, struct hy3_hdf5_image **out, hid_t *file);

/* Local. Ends the laying out and copies it to fd, whose file gets the size of HDF5's part (*bytes).
 * values [count]: the places in bytes that others write, for the seal; sorted and joined. Errors:
 * HY3_EIO, a full disk among them. */
hy3_status hy3_hdf5_image_store(struct hy3_hdf5_image *image, int fd, struct hy3_span *values,
                                int64_t count, int64_t *bytes);

/* Local. Sets complete = 1 in the file on disk and adds the seal. Errors: HY3_EIO. */
hy3_status hy3_hdf5_image_complete(const struct hy3_hdf5_image *image, int fd);

void hy3_hdf5_image_free(struct hy3_hdf5_image *image); /* NULL is fine */
