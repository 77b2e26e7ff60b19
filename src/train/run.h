/* SPDX-License-Identifier: Apache-2.0 */
/* run.h - a fine-tuning run from its configuration to the saved model. */
#pragma once

#include "config/config.h"

#include <mpi.h>

struct hy3_run; /* opaque; run_parts.h has it for the files of train/ */

/* Collective on `comm`. Checks everything that can be checked before long work, makes or opens the
 * token file, decides what becomes of what lies in output_dir, loads weights and state. Whatever
 * fails here leaves output_dir as it was, but for its mark and caches. `config` is kept until
 * hy3_run_close. The caller owns *out. */
hy3_status hy3_run_open(MPI_Comm comm, const struct hy3_config *config, struct hy3_run **out);
void hy3_run_close(struct hy3_run *run);

/* Collective on `comm`. The same as hy3_run_open, and says what hy3_run_train would do: --dry-run.
 * Only caches change. */
hy3_status hy3_run_rehearse(MPI_Comm comm, const struct hy3_config *config);

/* Collective. Trains, evaluates, logs, and leaves a complete Hugging Face directory in output_dir;
 * nothing where the run there is finished already. */
hy3_status hy3_run_train(struct hy3_run *run);
