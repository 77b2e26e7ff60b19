/* SPDX-License-Identifier: Apache-2.0 */
/* merge.h - folds an adapter into its model: W + scale B A, written as a new directory. */
#pragma once

#include "base/dtype.h"
#include "base/error.h"

#include <mpi.h>

struct hy3_merge {
    const char *base, *adapter, *output; /* directories; the first two are only read */
    hy3_dtype dtype;                     /* of the new weights; router biases stay fp32 */
    int workers;                         /* threads of this rank */
    bool verbose;                        /* what became of each tensor goes to standard output */
};

/* Collective on `comm`. Names and shards are those of the base; tensors that no adapter can change
 * (MTP layers) are copied as they are. Elements are rounded as PEFT's merge_and_unload does after
 * the base was loaded in `dtype`: of a matrix once, round(W + delta), of experts twice, round(W +
 * round(delta)); a tensor that the adapter has whole (modules_to_save) replaces the base's. What
 * became of each tensor is written to merge_report.tsv of the output (report.h) and summed up in
 * the log; factors that add nothing are told. A worker holds the factors of one shard's tensors.
 * Progress, restart and errors as in hf/rewrite.h; HY3_EDIVERGED naming a tensor
 * that overflows `dtype`. */
hy3_status hy3_merge(MPI_Comm comm, const struct hy3_merge *options);
