/* SPDX-License-Identifier: Apache-2.0 */
/* check.h - checks a directory of any kind that hy3 writes: a model, an adapter, a training
 * checkpoint. */
#pragma once

#include "ckpt/hf/check.h"

/* Collective on `comm`. Rank 0 writes a line for each finding, or one that says what the directory
 * is, to `out`. Of a checkpoint, everything but the values is checked, with all values their
 * checksums too. Errors: HY3_ENOMEM; HY3_EIO; HY3_EFORMAT of a checkpoint. */
hy3_status hy3_check_directory(MPI_Comm comm, const struct hy3_check *options, FILE *out,
                               int64_t *findings);
