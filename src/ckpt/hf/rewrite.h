/* SPDX-License-Identifier: Apache-2.0 */
/* rewrite.h - writes a model directory from another one, shard by shard: for hy3_convert and
 * hy3_merge.
 *
 * Invariants: the source is only read; a shard has its final name only when all of it is written
 * and flushed, and its checksums, taken on the way, are noted; checksums.json and the index come
 * last. So a run that was killed at any moment is continued by running
 * it again: shards that are there and are of the same plan and sources (output/.hy3_rewrite.json,
 * which goes when all is done) are kept; a complete result is recognised by hy3_source and left as
 * it is. No worker holds more than a few pieces of some MB. */
#pragma once

#include "ckpt/hf/plan.h"

#include <mpi.h>

/* Changes elements of plan entry `entry`: `from` as the base has them, `to` as they are written.
 * Called from several threads at once. */
typedef hy3_status (*hy3_hf_change)(void *context, int entry, struct hy3_span span,
                                    const void *from, void *to);

struct hy3_hf_rewrite {
    const struct hy3_hf_dir *base;
    const char *output;   /* directory, created if need be */
    const char *settings; /* one line: what else the result depends on */
    const char *verb;     /* of the progress line: "converting" */
    int workers;          /* threads of this rank */
    hy3_status (*begin)(void *context,
                        const struct hy3_hf_file *file); /* before a shard; or NULL */
    hy3_hf_change change; /* for entries that convert; NULL: none do */
    void *context;
    const struct hy3_hf_writer_options *config; /* config.json is written anew; NULL: copied */
    const char *report; /* file of the output with a text for every shard, in order; NULL: none */
    /* after a shard, on the rank that wrote it: its text (hy3_free) */
    hy3_status (*describe)(void *context, const struct hy3_hf_file *file, char **text);
};

/* Collective on `comm`; all ranks have the same plan, laid out. Shards are dealt out to the ranks,
 * pieces of a shard to the workers. The files beside the weights are copied
 * (hf/companions.h). Errors: HY3_EUSAGE if
 * the output lies in the base or holds something else; HY3_EIO, also for a disk that is too small,
 * before anything is written; what `change` returns. */
hy3_status hy3_hf_rewrite(MPI_Comm comm, const struct hy3_hf_rewrite *rewrite,
                          const struct hy3_hf_plan *plan);
