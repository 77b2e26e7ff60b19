/* SPDX-License-Identifier: Apache-2.0 */
/* layout.c - communicators. */
#include "parallel/layout.h"

#include "base/plural.h"

#include <stdio.h>

enum { LEAST_ZERO = 32, MOST_ZERO = 64 }; /* ranks of a ZeRO group that is chosen */

int hy3_layout_ranks_per_node(const struct hy3_layout *layout)
{
    int64_t first = layout->world.rank, fits, size[2] = {layout->node.size, -layout->node.size};

    hy3_allreduce_int(layout->node.comm, &first, 1, MPI_MIN, "laying out the ranks");
    hy3_allreduce_int(layout->world.comm, size, 2, MPI_MIN, "laying out the ranks");
    if (size[0] < 1)
        return 1;
    fits = size[0] == -size[1] && first % size[0] == 0 &&
           layout->world.rank - first == layout->node.rank;
    hy3_allreduce_int(layout->world.comm, &fits, 1, MPI_MIN, "laying out the ranks");
    return fits ? (int)size[0] : 1;
}

bool hy3_layout_is_over_nodes(int size, int per_node)
{
    return per_node > 1 && size > per_node && size % per_node == 0;
}

bool hy3_expert_group_divides(int size, int ranks, int64_t experts)
{
    return ranks % size == 0 && (size == 1 || (experts > 0 && experts % size == 0));
}

hy3_status hy3_expert_group_check(int size, int ranks, int64_t experts)
{
    /* NOLINTNEXTLINE(clang-analyzer-core.DivideZero): it is 1 at least where it divides */
    if (size < 1 || ranks % size != 0)
        HY3_FAIL(HY3_EUSAGE, "expert_parallel_size = %d does not divide the %d rank%s", size, ranks,
                 hy3_s(ranks));
    if (!hy3_expert_group_divides(size, ranks, experts))
        HY3_FAIL(HY3_EUSAGE, "expert_parallel_size = %d does not divide the %lld experts", size,
                 (long long)experts);
    return HY3_OK;
}

bool hy3_sequence_group_divides(int size, int ranks, int per_node)
{
    int here = per_node < ranks ? per_node : ranks;

    return size > 0 && here % size == 0 && ranks % size == 0;
}

hy3_status hy3_sequence_group_check(int size, int ranks, int per_node)
{
    static const char alone[] = " (1 where nodes differ or their ranks are not consecutive)";
    int here = per_node < ranks ? per_node : ranks;

    if (!hy3_sequence_group_divides(size, ranks, per_node))
        HY3_FAIL(HY3_EUSAGE,
                 "sequence_parallel_size = %d does not divide the %d rank%s of a node%s", size,
                 here, hy3_s(here), here == 1 && ranks > 1 ? alone : "");
    return HY3_OK;
}

int hy3_expert_group_size(int64_t experts, int ranks, int per_node)
{
    int size = per_node < ranks ? per_node : ranks;

    if (experts == 0)
        return 1;
    while (size > 1 && !(hy3_expert_group_divides(size, ranks, experts) && per_node % size == 0))
        size--;
    return size < 1 ? 1 : size;
}

static int choose_zero_group(int ranks, int per_node)
{
    int chosen = 0;

    if (ranks <= MOST_ZERO)
        return ranks;
    for (int size = MOST_ZERO; size >= LEAST_ZERO; size--) {
        if (ranks % size == 0 && size % per_node == 0)
            return size;
        if (ranks % size == 0 && chosen == 0)
            chosen = size;
    }
    return chosen > 0 ? chosen : ranks;
}

hy3_status hy3_zero_group_size(int wanted, int ranks, int per_node, int *size)
{
    char divisors[256] = "";
    size_t used = 0;

    *size = wanted > 0 ? wanted : choose_zero_group(ranks, per_node);
    if (ranks % *size == 0)
        return HY3_OK;
    for (int d = 1; d <= ranks && used < sizeof divisors; d++)
        if (ranks % d == 0)
            used += (size_t)snprintf(divisors + used, sizeof divisors - used, "%s%d",
                                     d > 1 ? ", " : "", d);
    HY3_FAIL(HY3_EUSAGE, "zero_group_size = %d does not divide the %d rank%s; these do: %s", wanted,
             ranks, hy3_s(ranks), divisors);
}

int hy3_replica_group_size(int zero_group, int replicas)
{
    if (replicas <= zero_group)
        return replicas;
    for (int size = zero_group; 2 * size >= zero_group; size--)
        if (replicas % size == 0)
            return size;
    return replicas;
}

hy3_status hy3_layout_open(MPI_Comm comm, int expert_parallel_size, int64_t experts,
                           int zero_group_size, int sequence_parallel_size, struct hy3_layout *out)
{
    MPI_Comm made;
    int P = expert_parallel_size, Z, R, per_node, place, replica;

    *out = (struct hy3_layout){.world.comm = MPI_COMM_NULL, .node.comm = MPI_COMM_NULL};
    out->zero.comm = out->peers.comm = MPI_COMM_NULL;
    out->experts.comm = out->replicas.comm = out->replica_peers.comm = MPI_COMM_NULL;
    out->near.comm = out->across.comm = out->sequence.comm = MPI_COMM_NULL;
    MPI_Comm_dup(comm, &made);
    out->world = hy3_group_of(made);
    MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, out->world.rank, MPI_INFO_NULL, &made);
    out->node = hy3_group_of(made);
    per_node = hy3_layout_ranks_per_node(out);
    HY3_TRY(hy3_zero_group_size(zero_group_size, out->world.size, per_node, &Z));
    if (P == 0)
        P = hy3_expert_group_size(experts, out->world.size, per_node);
    HY3_TRY(hy3_expert_group_check(P, out->world.size, experts));
    HY3_TRY(hy3_sequence_group_check(sequence_parallel_size, out->world.size, per_node));
    MPI_Comm_split(comm, out->world.rank / sequence_parallel_size, out->world.rank, &made);
    out->sequence = hy3_group_of(made);
    MPI_Comm_split(comm, out->world.rank / Z, out->world.rank, &made);
    out->zero = hy3_group_of(made);
    MPI_Comm_split(comm, out->world.rank % Z, out->world.rank, &made);
    out->peers = hy3_group_of(made);
    MPI_Comm_split(comm, out->world.rank / P, out->world.rank, &made);
    out->experts = hy3_group_of(made);
    R = hy3_replica_group_size(Z, out->world.size / P);
    place = out->world.rank % P;
    replica = out->world.rank / P;
    MPI_Comm_split(comm, replica / R * P + place, out->world.rank, &made);
    out->replicas = hy3_group_of(made);
    MPI_Comm_split(comm, replica % R * P + place, out->world.rank, &made);
    out->replica_peers = hy3_group_of(made);
    if (!hy3_layout_is_over_nodes(P, per_node))
        return HY3_OK;
    MPI_Comm_split(out->experts.comm, out->experts.rank / per_node, out->experts.rank, &made);
    out->near = hy3_group_of(made);
    MPI_Comm_split(out->experts.comm, out->experts.rank % per_node, out->experts.rank, &made);
    out->across = hy3_group_of(made);
    return HY3_OK;
}

void hy3_layout_close(struct hy3_layout *layout)
{
    struct hy3_group *all[] = {&layout->world,    &layout->node,          &layout->zero,
                               &layout->peers,    &layout->experts,       &layout->replicas,
                               &layout->sequence, &layout->replica_peers, &layout->near,
                               &layout->across};

    for (size_t i = 0; i < sizeof all / sizeof(void *); i++)
        if (all[i]->comm != MPI_COMM_NULL && all[i]->comm != 0)
            MPI_Comm_free(&all[i]->comm);
}
