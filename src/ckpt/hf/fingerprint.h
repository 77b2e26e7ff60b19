/* SPDX-License-Identifier: Apache-2.0 */
/* fingerprint.h - which model a directory holds: 64 bits of its shape and of samples of its values.
 *
 * Neither paths, times, shards nor the layout of the names change it, nor a dtype that keeps every
 * value; an update of a tensor does. */
#pragma once

#include "ckpt/hf/directory.h"

#include <mpi.h>

/* Collective on `comm`. Rank 0 opens every shard and reads a few KB of each tensor. Errors:
 * HY3_EIO, HY3_EFORMAT. */
hy3_status hy3_hf_fingerprint(MPI_Comm comm, const struct hy3_hf_dir *dir,
                              const struct hy3_shape *shape, uint64_t *out);
