/* SPDX-License-Identifier: Apache-2.0 */
/* adapter.h - LoRA adapters as PEFT's files: adapter_config.json and adapter_model.safetensors.
 *
 * Fused experts (PEFT's target_parameters) have A as [rank E, in], which is our [E, rank, in], and
 * B as [out, rank E] with the expert as its fastest index, which is our [E, out, rank] in another
 * order: it is reordered here and nowhere else. Writing: writer.h; a new adapter: draw.h. */
#pragma once

#include "ckpt/hf/safetensors.h"
#include "model/values.h"

struct hy3_adapter; /* opaque: an adapter directory, read only */

/* Local. Reads the configuration and the header. params: of the model it is for.
 * Errors: HY3_EIO; HY3_EFORMAT naming file and key or tensor, also for kinds of adapters that add
 * something other than scale B A. The caller owns *out (hy3_adapter_close). */
hy3_status hy3_adapter_open(const char *directory, const struct hy3_params *params,
                            struct hy3_adapter **out);
void hy3_adapter_close(struct hy3_adapter *adapter);

/* Local. Opens the file of weights; of one in another format it says what to do. The caller owns
 * *out (hy3_shard_close). */
hy3_status hy3_adapter_open_weights(const char *directory, struct hy3_shard **out);

/* Rank, scale, targets, whole modules and, of an adapter of some layers only, the matrices; no
 * dropout. Borrowed from the adapter. */
const struct hy3_lora *hy3_adapter_lora(const struct hy3_adapter *adapter);

/* Local. Checks every tensor of the file; `params` has this adapter. Errors: HY3_EFORMAT naming the
 * tensor that is missing, unknown or of a wrong shape. */
hy3_status hy3_adapter_account(const struct hy3_adapter *adapter, const struct hy3_params *params);

/* Local. The same for one factor or whole tensor. */
hy3_status hy3_adapter_account_for(const struct hy3_adapter *adapter,
                                   const struct hy3_param *param);

/* Local. The part of a factor or whole tensor that this rank holds, in our order: out [held].
 * Errors: HY3_EFORMAT naming a tensor that is not finite. */
hy3_status hy3_adapter_read(const struct hy3_adapter *adapter, const struct hy3_param *param,
                            float *out);

/* Local. Checks the file and puts what this rank holds. Errors as above. */
hy3_status hy3_adapter_load(const struct hy3_adapter *adapter, const struct hy3_params *params,
                            struct hy3_values values);

/* Factors B of zeros only: they add nothing. */
struct hy3_adapter_zeros {
    int matrices, zeros;
    const char *first; /* NULL: none */
};

/* Local. Reads every B. Errors as above. */
hy3_status hy3_adapter_zeros(const struct hy3_adapter *adapter, const struct hy3_params *params,
                             struct hy3_adapter_zeros *out);

/* The file of its weights. */
const char *hy3_adapter_path(const struct hy3_adapter *adapter);

/* Local. Of all bytes of that file, rank, alpha and use_rslora. */
hy3_status hy3_adapter_fingerprint(const struct hy3_adapter *adapter, uint64_t *out);

/* Local. Warns if the adapter says that it was trained on other values than those of the base at
 * `path`, whose fingerprint is given: what it adds was made for those. */
void hy3_adapter_tell_base(const struct hy3_adapter *adapter, const char *path,
                           const char *fingerprint);
