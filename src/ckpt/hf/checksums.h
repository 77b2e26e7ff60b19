/* SPDX-License-Identifier: Apache-2.0 */
/* checksums.h - checksums.json, by which a directory that hy3 wrote is compared with what was
 * written (hf/verify.h), and the lists of SHA-256 that others publish.
 *
 * In memory: an object of files by name, each {"sha256": TEXT, "size": BYTES} and, of shards,
 * "tensors": {NAME: XXH3 as 16 digits}. On disk: {"files": …, "version": 1} in the order of the
 * names, so that its bytes follow from those of the files. The digests are taken from what is
 * written, as it passes by (hf/digest.h). */
#pragma once

#include "ckpt/hf/digest.h"
#include "ckpt/hf/plan.h"

#define HY3_CHECKSUMS "checksums.json"

/* Local. Adds a file. files: NULL does nothing, here and below. Errors: HY3_ENOMEM. */
hy3_status hy3_checksums_add(json_t *files, const char *name, int64_t size, const char *sha256);

/* Local. Writes, or copies the file `source`, to the directory under this name, and adds. */
hy3_status hy3_checksums_replace(json_t *files, const char *directory, const char *name,
                                 const void *data, size_t size);
hy3_status hy3_checksums_copy(json_t *files, const char *source, const char *directory,
                              const char *name);

/* Local. Size and digest of a file that is there. */
hy3_status hy3_checksums_of(const char *path, int64_t *size, char sha256[HY3_SHA256_TEXT]);

/* Local. Where the tensors of a planned shard lie, for its digest; the caller owns *out. */
hy3_status hy3_checksums_begin(const struct hy3_hf_plan *plan, const struct hy3_hf_file *file,
                               struct hy3_digest **out);

/* Local. The entry of a planned shard. xxh3 [tensors of the shard]. The caller owns *out
 * (json_decref). */
hy3_status hy3_checksums_shard(const struct hy3_hf_plan *plan, const struct hy3_hf_file *file,
                               const uint64_t *xxh3, const unsigned char *sha256, json_t **out);

/* Local. Whether the entry of a shard has this checksum for the tensor. */
bool hy3_checksums_has(const json_t *entry, const char *tensor, uint64_t xxh3);

/* Local. Writes checksums.json. */
hy3_status hy3_checksums_write(const char *directory, json_t *files);

/* Local. The files of checksums.json; NULL: there is none. Every entry is complete and of the right
 * form, every name a file's in this directory. The caller owns *files (json_decref). Errors:
 * HY3_EFORMAT naming file and key; HY3_EIO. */
hy3_status hy3_checksums_read(const char *directory, json_t **files);

/* Local. A list as sha256sum writes it and hubs publish it: lines "DIGEST  NAME" or "DIGEST *NAME".
 * The entries have sha256 only. Errors: HY3_EFORMAT naming the line. */
hy3_status hy3_checksums_read_list(const char *path, json_t **files);
