/* SPDX-License-Identifier: Apache-2.0 */
/* datasets.h - the data that a configuration names, as token files. */
#pragma once

#include "config/config.h"
#include "data/batches.h"
#include "model/shape.h"
#include "parallel/layout.h"

/* Collective on `comm`. name: "train" for train_data_file or the data sets of dataset_dir, "eval"
 * for eval_data_file or eval_dataset. Builds the token file if no usable one exists; is_tentative:
 * see struct hy3_dataset_options. summary may be NULL. Errors:
 * HY3_EUSAGE where nothing or no tokenizer is named; see hy3_dataset_open. The caller owns *out. */
hy3_status hy3_datasets_open(MPI_Comm comm, const struct hy3_config *config, const char *name,
                             bool is_tentative, struct hy3_dataset **out,
                             struct hy3_dataset_summary *summary);

/* Local. The token file of the training data, if it is there; *out NULL: it is still to be built.
 * Errors and ownership: as above. */
hy3_status hy3_datasets_look(const struct hy3_config *config, struct hy3_dataset **out);

/* Local. Splits the samples of `train_set` into those to train on and those to evaluate: at random,
 * since files are often sorted; with disable_shuffling the last ones are for evaluation. eval_set:
 * samples of its own for evaluation, or NULL. eval->dataset is NULL where nothing is evaluated.
 * shape: what samples cost. Errors: HY3_EUSAGE where nothing is left to train on. */
hy3_status hy3_datasets_split(const struct hy3_config *config, const struct hy3_group *world,
                              const struct hy3_shape *shape, const struct hy3_dataset *train_set,
                              const struct hy3_dataset *eval_set, struct hy3_batches *train,
                              struct hy3_batches *eval);

/* Local. The random samples of use_dummy_data. */
hy3_status hy3_datasets_dummy(const struct hy3_config *config, const struct hy3_shape *shape,
                              struct hy3_dataset **out);
