/* SPDX-License-Identifier: Apache-2.0 */
/* run_data.h - the data of a run: samples for training and evaluation, batches, number of steps. */
#pragma once

#include "config/config.h"
#include "data/batches.h"
#include "parallel/layout.h"

struct hy3_run_data {
    struct hy3_dataset *train_set;
    struct hy3_dataset *eval_set;   /* NULL: none of its own */
    struct hy3_batches train, eval; /* eval.dataset NULL: no evaluation */
    struct hy3_batch *batch, *eval_batch;
    int64_t longest; /* tokens of the longest sample */
    int64_t steps, steps_per_epoch;
};

/* Collective. Opens or builds the token files, holds out samples for evaluation, counts the steps.
 * vocab: for use_dummy_data. *data must be zero; the caller owns it (hy3_run_data_close), also
 * after an error. */
hy3_status hy3_run_data_open(const struct hy3_config *config, const struct hy3_group *world,
                             int64_t vocab, struct hy3_run_data *data);

/* Collective. What was tokenized replaces the token files that are there: call it when the data was
 * found right for the checkpoint to be resumed. */
hy3_status hy3_run_data_publish(const struct hy3_group *world, struct hy3_run_data *data);
void hy3_run_data_close(struct hy3_run_data *data);
