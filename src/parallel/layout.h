/* layout.h - who shares what: the communicators of a run, made from the one MPI was started with. */
#ifndef HY3_PARALLEL_LAYOUT_H
#define HY3_PARALLEL_LAYOUT_H

#include "base/error.h"

#include <mpi.h>

struct hy3_layout {
    MPI_Comm world;        /* own duplicate of the communicator given */
    MPI_Comm node;         /* ranks that share memory */
    MPI_Comm experts;      /* expert group: consecutive ranks that share one copy of the experts */
    MPI_Comm replicas;     /* expert replicas: the ranks that hold the same experts */
    int rank, size;        /* in world */
    int group, group_size; /* place in the expert group and its size P */
};

/* Collective on `comm`. P = expert_parallel_size must divide both ranks and experts; it is 1 until experts
 * are spread over ranks. The caller owns *out (hy3_layout_close). */
hy3_status hy3_layout_open(MPI_Comm comm, int expert_parallel_size, struct hy3_layout *out);
void hy3_layout_close(struct hy3_layout *layout);

#endif
