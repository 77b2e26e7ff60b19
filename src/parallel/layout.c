/* layout.c - communicators. */
#include "parallel/layout.h"

#include "comm/comm.h"

hy3_status hy3_layout_open(MPI_Comm comm, int expert_parallel_size, struct hy3_layout *out)
{
    int rank = hy3_rank(comm), size = hy3_size(comm);

    *out = (struct hy3_layout){.world = MPI_COMM_NULL, .node = MPI_COMM_NULL};
    out->experts = out->replicas = MPI_COMM_NULL;
    if (expert_parallel_size < 1 || size % expert_parallel_size != 0)
        return hy3_fail(HY3_EUSAGE, __FILE__, __LINE__,
                        "expert_parallel_size %d does not divide the %d ranks",
                        expert_parallel_size, size);
    out->rank = rank;
    out->size = size;
    out->group_size = expert_parallel_size;
    out->group = rank % expert_parallel_size;
    MPI_Comm_dup(comm, &out->world);
    MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, rank, MPI_INFO_NULL, &out->node);
    MPI_Comm_split(comm, rank / expert_parallel_size, rank, &out->experts);
    MPI_Comm_split(comm, out->group, rank, &out->replicas);
    return HY3_OK;
}

void hy3_layout_close(struct hy3_layout *layout)
{
    MPI_Comm *all[] = {&layout->world, &layout->node, &layout->experts, &layout->replicas};

    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (*all[i] != MPI_COMM_NULL && *all[i] != 0)
            MPI_Comm_free(all[i]);
}
