/* SPDX-License-Identifier: Apache-2.0 */
/* fingerprint.h - a number that changes when the text of the data files changes. */
#pragma once

#include "data/dataset_options.h"
#include "data/portions.h"

/* Sizes of all files, then the hashes of the first `hashed` portions, `stride` words apart: the
 * order of the files counts and their names do not. */
uint64_t hy3_fingerprint_combine(const struct hy3_source *sources, int count,
                                 const uint64_t *hashes, size_t stride, int64_t hashed);

/* Collective on `comm`. The same by reading the files, all ranks together. */
hy3_status hy3_fingerprint_read(MPI_Comm comm, const struct hy3_source *sources, int count,
                                int64_t piece_bytes, int64_t hashed, uint64_t *out);

/* Collective on `comm`. After the files were read with that result: whether they are still what was
 * read. One that only grew is warned of. Errors: HY3_EFORMAT naming a file that was changed. */
hy3_status hy3_fingerprint_verify(MPI_Comm comm, const struct hy3_source *sources, int count,
                                  int64_t piece_bytes, int64_t hashed, uint64_t was);

/* How the lines are read: what becomes of long samples, the forms of the files, and which of them
 * max_samples counts together. 0: ends are cut, all are lines of "messages", each file counts by
 * itself. */
uint64_t hy3_fingerprint_reading(const struct hy3_dataset_options *options);
