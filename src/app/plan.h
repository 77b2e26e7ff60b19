/* SPDX-License-Identifier: Apache-2.0 */
/* plan.h - memory and traffic of a run, measured by running it on a backend that only counts.
 *
 * A timeline of a step would be a second reader of the same steps: it takes the place of the
 * counting backend, or stands beside it, and gets each operation with its stream. */
#pragma once

#include "config/config.h"
#include "model/shape.h"

struct hy3_plan_options {
    const char *shape; /* config.json of the model; NULL: that of model_name_or_path */
    int ranks, ranks_per_node;
    double device_memory, host_memory; /* bytes per device and per node; 0: not limited */
};

/* Bytes of the rank that needs most. */
struct hy3_plan {
    int group;                                             /* ranks of an expert group */
    double weights, grads, gathered, optimizer, workspace; /* on device or host */
    double kernels;      /* workspaces of a GPU's kernels and of cuBLAS */
    double mpi;          /* MPI's buffer of a reduction, on a CPU; host */
    double saving;       /* copy of the state with save_async, host */
    double device, host; /* peaks */
    double reduced, gathered_sent, scattered, exchanged; /* sent per rank and step */
    double checkpoint, model;                            /* on disk */
    double parameters, trained;                          /* elements */
};

/* Local. Errors: HY3_EUSAGE, HY3_EFORMAT, HY3_EIO. */
hy3_status hy3_plan_make(const struct hy3_config *config, const struct hy3_shape *shape,
                         const struct hy3_plan_options *options, struct hy3_plan *plan);
