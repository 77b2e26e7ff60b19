/* SPDX-License-Identifier: Apache-2.0 */
/* mark.h - output_dir/.hy3_run: that hy3 made the directory, and how far its run is. */
#pragma once

#include "base/file.h"

#define HY3_MARK_NAME ".hy3_run"

/* What a run is besides its configuration. */
struct hy3_run_facts {
    int64_t steps, samples, global_batch;
    uint64_t data, base; /* fingerprints of the training data and of the base model */
};

struct hy3_mark {
    bool is_finished;
    bool ends_early;     /* finished by early stopping, before its total_steps */
    int64_t step;        /* of the newest checkpoint that this run wrote, or of its result */
    int64_t total_steps; /* planned; 0: not known yet */
    int64_t samples, global_batch;
    uint64_t data, base;     /* fingerprints of the training data and of the base model */
    char from[HY3_PATH_MAX]; /* resume_from_checkpoint of the command that started it */
    char job[64];            /* SLURM_JOB_ID of that command, "": none */
    bool keeps_previous;     /* what was set aside stays until the result is complete */
};

/* Local. *found is false where there is none or it is unreadable: the mark alone still says that
 * hy3 made the directory. */
hy3_status hy3_mark_read(const char *directory, struct hy3_mark *mark, bool *found);

/* Local. Replaces it. */
hy3_status hy3_mark_write(const char *directory, const struct hy3_mark *mark);
