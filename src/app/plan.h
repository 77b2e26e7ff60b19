/* SPDX-License-Identifier: Apache-2.0 */
/* plan.h - memory, traffic and seconds of a run, measured by running it on a backend that only
 * counts. */
#pragma once

#include "backend/dry/timeline.h"
#include "backend/profile.h"
#include "config/config.h"
#include "model/shape.h"

/* Of experts, where the user knows no better. */
#define HY3_PLAN_IMBALANCE 1.2

struct hy3_plan_options {
    const char *shape; /* config.json of the model; NULL: that of model_name_or_path */
    int ranks, ranks_per_node;
    double device_memory, host_memory; /* bytes per device and per node; 0: not limited */
    double disk;                       /* bytes/s that checkpoints are written at; 0: unknown */
    const struct hy3_rates *rates;     /* of the device; NULL: no seconds */
    double imbalance;                  /* rows of the busiest rank's experts by their mean */
    bool profile;                      /* seconds by kind, as hy3_profile measures them */
    bool suggest;                      /* print faster settings */
    bool nccl_is_open;                 /* device_memory is without what NCCL has taken */
    FILE *trace;                       /* of a step, in Chrome's form; NULL: none */
};

/* Bytes of the rank that needs most. */
struct hy3_plan {
    int group, zero_group; /* ranks of an expert group, of a ZeRO group */
    double offload_ratio;  /* of offload = auto: what it took, as of `full` */
    double weights, grads, gathered, optimizer, workspace; /* on device or host */
    double kernels;      /* workspaces of a GPU's kernels and of cuBLAS */
    double nccl;         /* NCCL's buffers, an estimate */
    double mpi;          /* MPI's buffer of a reduction, on a CPU; host */
    double saving;       /* copy of the state with save_async, host */
    double device, host; /* peaks */
    double reduced, gathered_sent, scattered, exchanged; /* sent per rank and step */
    double copied;                                       /* from and to host memory, the same */
    double checkpoint, model;                            /* on disk */
    double parameters, trained;                          /* elements */
    double kinds[HY3_PROFILE_KINDS];  /* seconds of a step, with options->profile */
    struct hy3_timing micros, update; /* of a step: its micro-batches together, then the update */
};

/* Seconds of a step, an update included. */
static inline double hy3_plan_seconds(const struct hy3_plan *plan)
{
    return plan->micros.seconds + plan->update.seconds;
}

/* Bytes of host memory per node: that of its ranks, and on a CPU their device memory. */
double hy3_plan_fit_node(const struct hy3_config *config, const struct hy3_plan_options *options,
                         const struct hy3_plan *plan);

/* Whether it fits options->device_memory and host_memory. */
bool hy3_plan_fit(const struct hy3_config *config, const struct hy3_plan_options *options,
                  const struct hy3_plan *plan);

/* Local. The shape in `file`, or if it is NULL that of model_name_or_path. Errors: HY3_EUSAGE,
 * HY3_EFORMAT, HY3_EIO. */
hy3_status hy3_plan_shape(const struct hy3_config *config, const char *file,
                          struct hy3_shape *shape);

/* Local. With expert_parallel_size = auto and rates: of all sizes of expert groups the fastest that
 * fits; without rates that of hy3_layout_open. With offload = auto: the least in host memory with
 * which it fits options->device_memory. Errors: HY3_EUSAGE, HY3_EFORMAT, HY3_EIO. */
hy3_status hy3_plan_make(const struct hy3_config *config, const struct hy3_shape *shape,
                         const struct hy3_plan_options *options, struct hy3_plan *plan);
