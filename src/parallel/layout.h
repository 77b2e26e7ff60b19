/* SPDX-License-Identifier: Apache-2.0 */
/* layout.h - the communicators of a run: world, node, expert group, expert replicas. */
#pragma once

#include "comm/comm.h"

struct hy3_layout {
    struct hy3_group world; /* own duplicate of the communicator given */
    struct hy3_group node;  /* ranks that share memory */
    /* expert group: consecutive ranks that share one copy of the experts */
    struct hy3_group experts;
    struct hy3_group replicas; /* expert replicas: the ranks that hold the same experts */
};

/* Collective on `comm`. expert_parallel_size: ranks of an expert group; it must divide the ranks
 * and, if there are any, the `experts`. 0: the largest that does and keeps each group inside a
 * node. The caller owns *out (hy3_layout_close), also after an error. Errors: HY3_EUSAGE, the same
 * on every rank. */
hy3_status hy3_layout_open(MPI_Comm comm, int expert_parallel_size, int64_t experts,
                           struct hy3_layout *out);
void hy3_layout_close(struct hy3_layout *layout);

/* Collective on layout->world. Ranks of each node, 1 if the nodes differ or their ranks are not
 * consecutive: then no group is sure to stay inside one. */
int hy3_layout_ranks_per_node(const struct hy3_layout *layout);

/* The largest size of an expert group for `ranks` ranks in nodes of `per_node` ranks each (1: nodes
 * differ). */
int hy3_expert_group_size(int64_t experts, int ranks, int per_node);
