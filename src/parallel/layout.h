/* SPDX-License-Identifier: Apache-2.0 */
/* layout.h - the communicators of a run: world, node, ZeRO group and its peers, expert group,
 * expert replicas. */
#pragma once

#include "comm/comm.h"

struct hy3_layout {
    struct hy3_group world; /* own duplicate of the communicator given */
    struct hy3_group node;  /* ranks that share memory */
    /* ZeRO group: consecutive ranks over which dense units are sliced */
    struct hy3_group zero;
    struct hy3_group peers; /* the ranks that have the same slice, one of each ZeRO group */
    /* expert group: consecutive ranks that share one copy of the experts */
    struct hy3_group experts;
    /* expert replicas: of the ranks that hold the same experts those over which they are sliced */
    struct hy3_group replicas;
    /* where an expert group is several whole nodes: its ranks in this node, and those with the same
     * place in its other nodes; else of size 0 */
    struct hy3_group near, across;
    /* sequence group: consecutive ranks of a node that share the tokens of a micro-batch */
    struct hy3_group sequence;
    struct hy3_group replica_peers; /* the ranks that have the same slice of the same experts */
};

/* Collective on `comm`. expert_parallel_size: ranks of an expert group; it must divide the ranks
 * and, if there are any, the `experts`. 0: the largest that does and keeps each group inside a
 * node. zero_group_size: of hy3_zero_group_size. sequence_parallel_size: ranks of a sequence group.
 * The caller owns *out (hy3_layout_close), also after an error. Errors: HY3_EUSAGE, the same on
 * every rank. */
hy3_status hy3_layout_open(MPI_Comm comm, int expert_parallel_size, int64_t experts,
                           int zero_group_size, int sequence_parallel_size, struct hy3_layout *out);
void hy3_layout_close(struct hy3_layout *layout);

/* Collective on layout->world. Ranks of each node, 1 if the nodes differ or their ranks are not
 * consecutive: then no group is sure to stay inside one. */
int hy3_layout_ranks_per_node(const struct hy3_layout *layout);

/* Whether expert groups of `size` ranks are several whole nodes of `per_node` ranks each. */
bool hy3_layout_is_over_nodes(int size, int per_node);

/* Whether expert groups of `size` ranks, 1 or more, divide the ranks and, if there are any, the
 * experts. */
bool hy3_expert_group_divides(int size, int ranks, int64_t experts);

/* Local. Errors: HY3_EUSAGE, they do not. */
hy3_status hy3_expert_group_check(int size, int ranks, int64_t experts);

/* Whether sequence groups of `size` ranks lie inside nodes of `per_node` ranks each, or all ranks
 * in one. */
bool hy3_sequence_group_divides(int size, int ranks, int per_node);

/* Local. Errors: HY3_EUSAGE, they do not. */
hy3_status hy3_sequence_group_check(int size, int ranks, int per_node);

/* The largest size of an expert group for `ranks` ranks in nodes of `per_node` ranks each (1: nodes
 * differ). */
int hy3_expert_group_size(int64_t experts, int ranks, int per_node);

/* Local. Ranks of a ZeRO group: `wanted`, which must divide the ranks. 0: all of up to 64 ranks; of
 * more the largest divisor from 32 to 64, of whole nodes if there is one; all if there is none, as
 * slices over fewer ranks take memory. Errors: HY3_EUSAGE with the sizes that divide. */
hy3_status hy3_zero_group_size(int wanted, int ranks, int per_node, int *size);

/* Ranks over which experts are sliced, of those that hold the same ones: all up to the size of a
 * ZeRO group; of more the largest divisor from half of it to it; all if there is none. */
int hy3_replica_group_size(int zero_group, int replicas);
