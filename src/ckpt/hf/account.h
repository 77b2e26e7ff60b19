/* SPDX-License-Identifier: Apache-2.0 */
/* account.h - checks the tensors of a directory against the parameter table: each parameter present
 * exactly once, with the right shape and a float dtype, and no other tensor. Findings are collected
 * and reported together. */
#pragma once

#include "ckpt/hf/directory.h"
#include "parallel/store.h"

struct hy3_account; /* opaque */

/* Local. saves: the model will be written. Both are kept until hy3_account_free. The caller owns
 * *out. */
hy3_status hy3_account_create(const struct hy3_hf_dir *dir, const struct hy3_store *store,
                              bool saves, struct hy3_account **out);
void hy3_account_free(struct hy3_account *account);

/* Local. Checks all tensors of the shard with this number. */
void hy3_account_shard(struct hy3_account *account, const struct hy3_shard *shard, int number);

/* Bytes of the tensors checked so far: of all of them, and those this rank has to read. */
int64_t hy3_account_bytes(const struct hy3_account *account);
int64_t hy3_account_kept_bytes(const struct hy3_account *account);

/* Local. After the last shard. Errors: HY3_EFORMAT listing what is missing, unexpected, of a wrong
 * shape … */
hy3_status hy3_account_end(struct hy3_account *account);
