/* SPDX-License-Identifier: Apache-2.0 */
/* directory.h - a Hugging Face model directory: which tensor is in which shard. Loading: hf/load.h.
 *
 * Inner and outer names, one file or many, F32, F16 and BF16 are all read directly (names.h). */
#pragma once

#include "ckpt/hf/names.h"
#include "ckpt/hf/safetensors.h"

struct hy3_hf_dir; /* opaque */

/* Local. Reads the index (or the single file) of `path` and checks it: shard names stay inside the
 * directory, every shard exists. Opens no shard. Errors: HY3_EIO, HY3_EFORMAT. The caller owns *out
 * (hy3_hf_dir_close). */
hy3_status hy3_hf_dir_open(const char *path, struct hy3_hf_dir **out);
/* Local. The same for a directory whose weights are not read: as if it had none. */
hy3_status hy3_hf_dir_open_dummy(const char *path, struct hy3_hf_dir **out);
void hy3_hf_dir_close(struct hy3_hf_dir *dir);

/* Local. HY3_EFORMAT if the directory has no weights of a model but is something else that hy3
 * knows: a training checkpoint, or an adapter. */
hy3_status hy3_hf_dir_expect_model(const char *path);

const char *hy3_hf_dir_path(const struct hy3_hf_dir *dir);
enum hy3_names hy3_hf_dir_names(const struct hy3_hf_dir *dir);
int hy3_hf_dir_shards(const struct hy3_hf_dir *dir);
const char *hy3_hf_dir_shard_name(const struct hy3_hf_dir *dir, int shard);
int hy3_hf_dir_tensors(const struct hy3_hf_dir *dir);
/* Tensor i in name order: its name and the number of its shard. */
const char *hy3_hf_dir_tensor(const struct hy3_hf_dir *dir, int i, int *shard);
/* The number of the tensor, -1: not in the index. */
int hy3_hf_dir_find(const struct hy3_hf_dir *dir, const char *name);
/* Bytes of all tensors as the index says, -1: it does not. */
int64_t hy3_hf_dir_total_bytes(const struct hy3_hf_dir *dir);
/* Local. Opens the shard with this number. The caller owns *out (hy3_shard_close). */
hy3_status hy3_hf_dir_open_shard(const struct hy3_hf_dir *dir, int shard, struct hy3_shard **out);
