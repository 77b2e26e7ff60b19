/* SPDX-License-Identifier: Apache-2.0 */
/* run.h - a fine-tuning run from its configuration to the saved model. */
#pragma once

#include "config/config.h"

#include <mpi.h>

struct hy3_run; /* opaque; run_parts.h has it for the files of train/ */

/* Collective on `comm`. Checks everything that can be checked before long work, makes or opens the
 * token file, loads the weights. `config` is kept until hy3_run_close. The caller owns *out. */
hy3_status hy3_run_open(MPI_Comm comm, const struct hy3_config *config, struct hy3_run **out);
void hy3_run_close(struct hy3_run *run);

/* Collective. Trains, evaluates, logs, and leaves a complete Hugging Face directory in
 * output_dir. */
hy3_status hy3_run_train(struct hy3_run *run);
