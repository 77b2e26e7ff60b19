/* SPDX-License-Identifier: Apache-2.0 */
/* run_data.h - the data of a run: samples for training and evaluation, batches, number of steps. */
#pragma once

#include "config/config.h"
#include "data/batches.h"
#include "model/shape.h"
#include "parallel/layout.h"

struct hy3_run_data {
    struct hy3_dataset *train_set;
    struct hy3_dataset *eval_set;               /* NULL: none of its own */
    struct hy3_batches train, eval;             /* eval.dataset NULL: no evaluation */
    struct hy3_packing *packing, *eval_packing; /* NULL: samples are not packed */
    struct hy3_batch *batch, *eval_batch;
    int64_t longest;      /* tokens of the longest item: sample, or row of packing */
    int64_t most_samples; /* of a micro-batch */
    int64_t steps, steps_per_epoch;
    int64_t schedule_steps; /* of which max_epochs may leave some undone */
};

/* Collective. Opens or builds the token files, holds out samples for evaluation, packs them, counts
 * the steps. shape: its vocabulary, for use_dummy_data, and what samples cost. *data must be zero;
 * the caller owns it (hy3_run_data_close), also after an error. */
hy3_status hy3_run_data_open(const struct hy3_config *config, const struct hy3_group *world,
                             const struct hy3_shape *shape, struct hy3_run_data *data);

/* Logs how full the rows are and how evenly the ranks are loaded. */
void hy3_run_data_announce(const struct hy3_run_data *data);

/* A number that changes when the samples or their rows change. */
uint64_t hy3_run_data_fingerprint(const struct hy3_run_data *data);

/* Collective. What was tokenized replaces the token files that are there: call it when the data was
 * found right for the checkpoint to be resumed. */
hy3_status hy3_run_data_publish(const struct hy3_group *world, struct hy3_run_data *data);
void hy3_run_data_close(struct hy3_run_data *data);
