/* SPDX-License-Identifier: Apache-2.0 */
/* load.h - reads a model directory into the parameter store. */
#pragma once

#include "ckpt/hf/directory.h"
#include "parallel/store.h"

/* Collective on `comm`. Checks every tensor (those missing, unexpected or of a wrong shape are an
 * error that lists them; MTP layers are known and not read), then every rank reads the byte ranges
 * its store holds, in large reads, shard by shard. Progress in bytes. Values are rounded to nearest
 * even to the dtype of the store, 8-bit tensors expanded to it; where it keeps 8 bits, those of a
 * file stay as they are and others are quantized, with their error told. masters: of the optimizer
 * over the store; trained tensors that the store would round are put there too, with all bits of
 * the file, after which the store counts as updated; NULL: nothing is trained from here. NaN,
 * infinity and scales that are none are an error naming the tensor. */
hy3_status hy3_hf_load(MPI_Comm comm, const struct hy3_hf_dir *dir, struct hy3_store *store,
                       const struct hy3_values *masters);
