/* SPDX-License-Identifier: Apache-2.0 */
/* check.h - is a checkpoint directory complete and sound? */
#pragma once

#include "base/error.h"

#include <mpi.h>

#include <stdio.h>

struct hy3_check {
    const char *directory;
    int64_t spot_check; /* tensors whose values are read, spread over all; -1: all of them */
    const char *list;   /* of SHA-256 to compare with (hf/checksums.h), read as all; NULL: none */
};

struct hy3_check_summary {
    int64_t tensors, shards, read; /* read: tensors whose values were read */
    int64_t bytes;                 /* of all tensors */
    int64_t listed;                /* files in checksums.json, 0: there is none */
    int64_t findings;
};

/* Collective on `comm`; the values are read by all ranks. Six checks: config.json; every expected
 * tensor, MTP layers included; every shard; shape, dtype, NaN and infinity; shards that the index
 * does not list; checksums.json and the list: of small files and tensors that are read, and of all
 * files if all values are. Rank 0 writes one line per finding to `out`, "FILE: TENSOR: what is
 * wrong". Findings are not errors. Errors: HY3_ENOMEM; HY3_EIO if there is no such directory; those
 * of the list. */
hy3_status hy3_check(MPI_Comm comm, const struct hy3_check *options, FILE *out,
                     struct hy3_check_summary *summary);
