/* SPDX-License-Identifier: Apache-2.0 */
/* datasets.h - the data that a configuration names, as token files. */
#pragma once

#include "config/config.h"
#include "data/dataset.h"

/* Collective on `comm`. name: "train" for train_data_file or the data sets of dataset_dir, "eval"
 * for eval_data_file. Builds the token file if no usable one exists; is_tentative: see struct
 * hy3_dataset_options. summary may be NULL. Errors:
 * HY3_EUSAGE where nothing or no tokenizer is named; see hy3_dataset_open. The caller owns *out. */
hy3_status hy3_datasets_open(MPI_Comm comm, const struct hy3_config *config, const char *name,
                             bool is_tentative, struct hy3_dataset **out,
                             struct hy3_dataset_summary *summary);
