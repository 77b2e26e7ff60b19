/* SPDX-License-Identifier: Apache-2.0 */
/* token_file.h - the HDF5 file of a dataset: its contents, and the checks before use.
 *
 * HDF5 reads the structure only; tokens are read with pread at the offsets found here.
 * Writing: token_writer.h. */
#pragma once

#include "base/hdf5.h"
#include "data/dataset_options.h"
#include "data/sources.h"

/* Raised whenever the same text may give other tokens or another layout. */
enum { HY3_TOKEN_FORMAT = 6 };

/* The contents of the file but its columns. Plain values: it is broadcast as bytes. */
struct hy3_token_header {
    int64_t format;
    uint64_t tokenizer, source, reading; /* fingerprints */
    int64_t max_seq_length, max_samples;
    int64_t keep_unlabelled;     /* 0, 1 */
    int64_t content_tokens;      /* enum hy3_content_tokens */
    int64_t piece_bytes, hashed; /* of the source fingerprint: fingerprint.h */
    struct hy3_dataset_summary summary;
    int64_t tokens_at, mask_at, offsets_at, line_at, file_at, checksum_at; /* bytes in the file */
    int64_t weights_at, weight_checksum_at; /* where the summary has weighted labels */
    int64_t size, device, inode, mtime_ns;  /* of the file */
    bool has_same_sources; /* names, sizes, times and samples of the contents are those given */
};

/* One list for writing and reading; the last has no name. */
struct hy3_token_attribute {
    const char *name;
    size_t offset; /* of a 64-bit field of the header */
    bool is_fingerprint;
};
extern const struct hy3_token_attribute hy3_token_attributes[];

/* As the header has it in memory. */
hid_t hy3_token_attribute_type(const struct hy3_token_attribute *attribute);

enum hy3_token_kind { HY3_TOKENS, HY3_SAMPLES, HY3_SAMPLE_STARTS, HY3_FILES };

struct hy3_token_column {
    const char *name;
    size_t size; /* bytes of an element: an unsigned integer, or (HY3_FILES, 8) a signed one */
    enum hy3_token_kind kind;
    size_t offset;   /* of the header's field for its place; SIZE_MAX: read through HDF5 */
    bool of_weights; /* only there where not all weights are 1; tokens: fp32 */
};

enum { HY3_TOKEN_COLUMNS = 12 };
extern const struct hy3_token_column hy3_token_columns[HY3_TOKEN_COLUMNS + 1];

/* Whether the file has the column. */
bool hy3_token_column_exists(const struct hy3_token_column *column,
                             const struct hy3_token_header *header);
int64_t hy3_token_column_count(const struct hy3_token_column *column,
                               const struct hy3_token_header *header, int file_count);
hid_t hy3_token_column_type(const struct hy3_token_column *column);

/* The element of a column of kind HY3_FILES. */
int64_t hy3_token_column_value(const struct hy3_token_column *column,
                               const struct hy3_source *source);

/* Local. Compares the metadata of `path` with its seal (base/hdf5_seal.h), without which HDF5 does
 * not open the file; then reads and checks its structure and its offsets. *offsets [samples + 1] is
 * the caller's (hy3_free). Errors: HY3_EFORMAT, HY3_EIO with the reason, without the path. */
hy3_status hy3_token_file_inspect(const char *path, const struct hy3_source *sources, int count,
                                  struct hy3_token_header *out, uint64_t **offsets);

/* Local. Opens it for reading; it must be the file that was inspected, perhaps on another rank. */
hy3_status hy3_token_file_open(const char *path, const struct hy3_token_header *header, int *fd);
