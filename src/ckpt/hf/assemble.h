/* SPDX-License-Identifier: Apache-2.0 */
/* assemble.h - brings the bytes of each shard together on the rank that writes it, its owner, in
 * the order of the file and a piece at a time.
 *
 * The shards are dealt out to the ranks in blocks, and where there are fewer shards than ranks, to
 * ranks that are evenly spread, and so to the nodes. In a round each owner gets the next piece of
 * its shards: what it has itself is put in place, what others have of it comes in one all-to-all,
 * tensors of the base are read. Each owner begins one round later than the one before: ranks hold
 * equal parts of all layers, so that at the same place of all shards the same rank would have to
 * send everything.
 *
 * Invariants: all ranks go through the same rounds; an owner gets every byte of its shards exactly
 * once, in order, whatever the number of ranks; a rank holds two pieces of its own shard, and of
 * those of others what it has of the pieces of one round. */
#pragma once

#include "ckpt/hf/plan.h"
#include "model/values.h"

#include <mpi.h>

/* Consecutive bytes of a shard. */
struct hy3_assembled {
    const struct hy3_hf_file *file;
    int64_t at, bytes; /* 0 bytes: none of this round */
    char *data;        /* [bytes] of the assembly, until the round after the next */
};

struct hy3_assembly; /* opaque */

/* Logically collective. piece: its bytes, a multiple of 8 and so of every element's size. plan and
 * values.of are kept until hy3_assembly_free. The caller owns *out. */
hy3_status hy3_assembly_create(MPI_Comm comm, const struct hy3_hf_plan *plan,
                               struct hy3_values values, int64_t piece, struct hy3_assembly **out);
void hy3_assembly_free(struct hy3_assembly *assembly); /* NULL is fine */

/* The rank that writes the shard. */
int hy3_assembly_owner(const struct hy3_hf_plan *plan, int file, int ranks);

int64_t hy3_assembly_rounds(const struct hy3_assembly *assembly);

/* Collective, once for each round. mine: the status of this rank's work so far; it ends the rounds
 * of all. */
hy3_status hy3_assembly_round(struct hy3_assembly *assembly, hy3_status mine,
                              struct hy3_assembled *out);
