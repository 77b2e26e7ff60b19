/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors.h - reads tensors of one Hugging Face shard by byte range.
 *
 * A shard is an 8-byte length, a JSON header and raw little-endian data. Opening reads the header
 * only; data is read on request with pread, so several ranks may share a file.
 * Not here: names across shards (hf/directory.h), writing (hf/writer.h). */
#pragma once

#include "base/dtype.h"
#include "base/error.h"
#include "base/span.h"

enum { HY3_SHARD_DIMS = 8 }; /* tensors of more dimensions are refused */

enum { HY3_SHARD_BASE = 20 }; /* bytes of a fingerprint with its final NUL */

struct hy3_shard; /* opaque */

struct hy3_shard_tensor {
    const char *name;       /* owned by the shard */
    const char *dtype_name; /* as in the file: "BF16", "F8_E4M3" … */
    bool is_float;          /* fp32, bf16 or fp16: `dtype` is valid */
    bool is_fp8;            /* F8_E4M3, whose scales are other tensors (hf/scales.h); so is it */
    hy3_dtype dtype;
    int dims;
    int64_t shape[HY3_SHARD_DIMS];
    int64_t count;        /* elements */
    int64_t begin, bytes; /* place in the file, from its first byte */
};

/* Local. Opens `path` and checks every byte range of its header against the size of the file.
 * Errors: HY3_EIO; HY3_EFORMAT, naming the tensor. The caller owns *out (hy3_shard_close). */
hy3_status hy3_shard_open(const char *path, struct hy3_shard **out);
void hy3_shard_close(struct hy3_shard *shard); /* NULL is fine */

/* As the header of a shard names it: "F32", "BF16", "F16". */
const char *hy3_shard_dtype_name(hy3_dtype dtype);

/* "[2, 3]", truncated to `size`. */
void hy3_shard_shape_text(const int64_t *shape, int dims, char *out, size_t size);

/* Tensors in the order of their data. */
int hy3_shard_count(const struct hy3_shard *shard);
const struct hy3_shard_tensor *hy3_shard_tensor(const struct hy3_shard *shard, int i);
const struct hy3_shard_tensor *hy3_shard_find(const struct hy3_shard *shard, const char *name);
const char *hy3_shard_path(const struct hy3_shard *shard);
/* The fingerprint of the base that an adapter of hy3 was trained on; "": the file does not say. */
const char *hy3_shard_base(const struct hy3_shard *shard);
int hy3_shard_fd(const struct hy3_shard *shard); /* open for reading; owned by the shard */

/* Local. Reads elements of a float tensor, converted to `dtype`. data: host, [span.count]. */
hy3_status hy3_shard_read(const struct hy3_shard *shard, const struct hy3_shard_tensor *tensor,
                          struct hy3_span span, void *data, hy3_dtype dtype);

/* Local. Reads `bytes` raw bytes from byte `at` of the tensor. */
hy3_status hy3_shard_read_raw(const struct hy3_shard *shard, const struct hy3_shard_tensor *tensor,
                              int64_t at, int64_t bytes, void *data);
