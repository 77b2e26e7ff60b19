/* SPDX-License-Identifier: Apache-2.0 */
/* run_parts.h - what a run consists of, for the files of train/ only. */
#pragma once

#include "app/loaded_model.h"
#include "base/lock.h"
#include "engine/pass.h"
#include "optim/schedule.h"
#include "optim/sharded_optimizer.h"
#include "train/checkpoint.h"
#include "train/output_dir.h"
#include "train/report.h"
#include "train/run_data.h"
#include "train/run_memory.h"
#include "train/run_time.h"

/* max_hours (limit.h). */
struct hy3_limit {
    double end;        /* hy3_seconds() when the time is over, 0: no limit */
    double step;       /* seconds of the last step without its evaluation, 0: none yet */
    double evaluation; /* seconds of the last one, 0: none yet */
};

struct hy3_run {
    const struct hy3_config *config;
    struct hy3_config settled; /* with what offload = auto has become; shares its texts */
    MPI_Comm comm;             /* of the model's layout */
    struct hy3_loaded_model model;
    struct hy3_state_identity identity; /* of the model, for checkpoints */
    struct hy3_output_dir dir;
    struct hy3_run_data data;
    struct hy3_pass *pass;
    struct hy3_sharded_optimizer optimizer;
    struct hy3_schedule schedule;
    struct hy3_checkpoints *checkpoints;
    struct hy3_report *report;
    struct hy3_run_memory memory;
    struct hy3_run_time time;
    bool profiles;         /* from hy3_profile_begin on */
    struct hy3_lock *lock; /* of output_dir, on rank 0 */
    struct hy3_limit limit;
    int64_t saves_every, evaluates_every; /* steps; INT64_MAX: not at fixed ones */
    int64_t last;                         /* step that the run ended after: early stopping */
    struct hy3_state_best best;           /* of the evaluations so far */
    struct hy3_report_state restored;     /* of an earlier part of the run; zero: none */
};

/* Whether anything is left to do, as hy3_output_dir_decide found. */
bool hy3_run_has_work(const struct hy3_run *run);
