/* SPDX-License-Identifier: Apache-2.0 */
/* hdf5_seal.h - a checksum of the metadata of an HDF5 file, behind the part that HDF5 knows.
 *
 * libhdf5 can crash on damaged metadata, before it compares checksums of its own (seen with 1.10.8:
 * 9 % of single flipped bits), and a damaged checkpoint must be skipped, a damaged token file built
 * anew: neither may end the job. So the bytes that HDF5 interprets are compared before it opens the
 * file. base/hdf5_image.h writes the seal.
 *
 *     uint64 [runs,2]   offset, bytes of each run of values: all the rest is metadata
 *     uint64            runs
 *     uint64            bytes of HDF5's part, which ends where the first number above begins
 *     uint64            XXH3 of the metadata
 *     uint64            XXH3 of the seal up to here
 *     "hy3 seal"        8 bytes, the last of the file
 *
 * Little-endian, as the whole file. It is no protection from forgery: a reader of files from others
 * checks what HDF5 says as well. */
#pragma once

#include "base/error.h"
#include "base/span.h"

struct hy3_hdf5_seal {
    char *bytes;
    size_t size;
};

/* Local. The seal of a complete file of file_bytes bytes, or of its image without values. runs
 * [count]: the places of all values, in bytes, in any order; they are sorted, and neighbours
 * joined, where they are. The caller owns seal->bytes (hy3_free). Errors: HY3_EIO. */
hy3_status hy3_hdf5_seal_create(int fd, const char *path, struct hy3_span *runs, int64_t count,
                                int64_t file_bytes, struct hy3_hdf5_seal *seal);

/* Local. Compares the metadata with the seal, if there is one (*found). Errors: HY3_EFORMAT,
 * HY3_EIO; the texts are about the file, which the caller names. */
hy3_status hy3_hdf5_seal_check(int fd, const char *path, bool *found);
