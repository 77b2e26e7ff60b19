/* SPDX-License-Identifier: Apache-2.0 */
/* plan.h - what a run needs and moves, found by going through it on a backend that only counts. */
#ifndef HY3_APP_PLAN_H
#define HY3_APP_PLAN_H

#include "config/config.h"
#include "model/shape.h"

struct hy3_plan_options {
    const char *shape; /* config.json of the model; NULL: that of model_name_or_path */
    int ranks, ranks_per_node;
    double device_memory, host_memory; /* bytes of a device and of a node; 0: not limited */
};

/* Bytes of one rank (the fullest), and of a step. */
struct hy3_plan {
    int group;                                             /* ranks of an expert group */
    double weights, grads, gathered, optimizer, workspace; /* wherever they lie */
    double kernels;      /* what a GPU's kernels and cuBLAS keep for themselves */
    double mpi;          /* MPI's own copy of what it sums, on a CPU; host */
    double saving;       /* copy of the state with save_async, host */
    double device, host; /* peaks */
    double reduced, gathered_sent, scattered, exchanged; /* sent by a rank in a step */
    double checkpoint, model;                            /* on disk */
    double parameters, trained;                          /* elements */
};

/* Local. Errors: HY3_EUSAGE, HY3_EFORMAT, HY3_EIO. */
hy3_status hy3_plan_make(const struct hy3_config *config, const struct hy3_shape *shape,
                         const struct hy3_plan_options *options, struct hy3_plan *plan);

/* Local. Reads the shape, prints the table, whether it fits, and if not what would: the first
 * change of a setting, and the smallest number of ranks. HY3_EUSAGE if it does not fit. */
hy3_status hy3_plan_print(const struct hy3_config *config, const struct hy3_plan_options *options);

#endif
