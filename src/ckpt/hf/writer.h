/* SPDX-License-Identifier: Apache-2.0 */
/* writer.h - writes a model as a Hugging Face directory, all ranks together.
 *
 * Invariants: nothing appears under its final name before all of it is written and flushed; each
 * shard is written by one rank, from its first byte to its last, and no rank holds more than a few
 * pieces of it (hf/assemble.h), of which others send what they hold (hy3_store_share); its
 * checksums are taken from exactly the bytes that are written, on the way, so that checksums.json
 * (hf/checksums.h) is the same for every number of ranks; tensors of the base that are not
 * parameters (MTP layers) are copied byte by byte; nothing is published if a tensor contains NaN or
 * infinity. */
#pragma once

#include "ckpt/hf/plan.h"
#include "model/values.h"

#include <mpi.h>

/* Collective on `comm`. All arguments but the values are equal on all ranks. Writes the weights
 * that `values` share, index, config.json (dtype updated), tokenizer and generation files, and
 * checksums.json. Progress in bytes. Needs some 50 MiB of host memory whatever the size of the
 * model. Errors: HY3_EDIVERGED naming a tensor with NaN or infinity; HY3_EIO, HY3_EFORMAT. The old
 * weights of the directory are untouched after an error. */
hy3_status hy3_hf_write(MPI_Comm comm, const struct hy3_hf_writer_options *options,
                        const struct hy3_params *params, struct hy3_values values);
