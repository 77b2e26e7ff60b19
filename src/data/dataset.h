/* SPDX-License-Identifier: Apache-2.0 */
/* dataset.h - the tokenized samples of a run: one HDF5 file, written by all ranks, read by offset.
 *
 * Invariants
 *  1. The final name never shows an incomplete file: temporary name, flush, mark, close, fsync,
 *     rename.
 *  2. A file without the mark, with another fingerprint or with sizes that do not fit is rebuilt,
 *     never used.
 *  3. The bytes of the file do not depend on the number of ranks that wrote it.
 *  4. Reading trusts nothing: sizes and offsets are checked at opening, each sample's checksum when
 *     it is read.
 * Layout (doc/formats.md): tokens u32 [total], label_mask u8 [total], loss_weight f32 [total] and
 * weight_checksum u64 [n] where weights are not all 1, offsets u64 [n+1],
 * source_line u64 [n], source_file u32 [n], checksum u64 [n], all contiguous; root attributes:
 * fingerprints, template, max_seq_length, counts. */
#pragma once

#include "data/dataset_options.h"

#include <mpi.h>

struct hy3_dataset; /* opaque */

/* Collective on `comm`. Opens the dataset, tokenizing first if no usable token file exists. Reports
 * progress and, in the same words for a file that was built and one that was read, its counts.
 * Errors: HY3_EFORMAT listing the bad lines as file:line: reason (up to 20, then a count);
 * HY3_EFORMAT when no sample is left; HY3_EIO. The caller owns *out (hy3_dataset_close). summary
 * may be NULL. With options->only_looks *out is NULL where a file would have to be built, and
 * nothing is logged or created. */
hy3_status hy3_dataset_open(MPI_Comm comm, const struct hy3_dataset_options *options,
                            struct hy3_dataset **out, struct hy3_dataset_summary *summary);

/* Collective on `comm`. Gives a tentative file (struct hy3_dataset_options) its final name. Without
 * it hy3_dataset_close removes the new file, and the old one stays. Nothing to do for others. */
hy3_status hy3_dataset_publish(MPI_Comm comm, struct hy3_dataset *dataset);
void hy3_dataset_close(struct hy3_dataset *dataset);

/* Local. A dataset of random tokens below `vocab`, drawn when read, for use_dummy_data: every token
 * but the first is a label. */
hy3_status hy3_dataset_dummy(int64_t samples, int64_t length, int64_t vocab, uint64_t seed,
                             struct hy3_dataset **out);

/* The samples of a dummy dataset get lengths from `shortest` to the one it was created with, drawn
 * evenly on a logarithmic scale: to measure with uneven ones. */
void hy3_dataset_vary(struct hy3_dataset *dataset, int64_t shortest);

const char *hy3_dataset_path(const struct hy3_dataset *dataset); /* of the token file */
int64_t hy3_dataset_count(const struct hy3_dataset *dataset);
int64_t hy3_dataset_longest(const struct hy3_dataset *dataset); /* tokens */

/* A number that changes when the samples change: of the sources, the tokenizer and how they were
 * cut. */
uint64_t hy3_dataset_fingerprint(const struct hy3_dataset *dataset);

/* Local. Tokens of sample i. */
int64_t hy3_dataset_length(const struct hy3_dataset *dataset, int64_t i);

/* Local. From now on a sample with an id of `vocab` or more is an error when it is read; before,
 * ids are only known not to be negative. */
void hy3_dataset_set_vocab(struct hy3_dataset *dataset, int64_t vocab);

/* Local. Reads sample i by pread: ids [length], mask [length] (1: a label). */
hy3_status hy3_dataset_read(const struct hy3_dataset *dataset, int64_t i, int32_t *ids,
                            uint8_t *mask);

/* Local. Whether labels of the dataset have other weights than 1. */
bool hy3_dataset_is_weighted(const struct hy3_dataset *dataset);

/* Local. The weight of the loss of each token of sample i, whose mask has been read: 0 where there
 * is no label, else above 0; of 1 where the dataset has no weights. weights [length]. Errors:
 * HY3_EIO; HY3_EFORMAT: they are damaged. */
hy3_status hy3_dataset_weights(const struct hy3_dataset *dataset, int64_t i, const uint8_t *mask,
                               float *weights);

/* Local. "FILE:LINE" of sample i, for messages; writes at most `size` bytes. */
void hy3_dataset_where(const struct hy3_dataset *dataset, int64_t i, char *out, size_t size);
