/* SPDX-License-Identifier: Apache-2.0 */
/* run_state.h - the progress of a run: saved with a checkpoint, restored from one. */
#pragma once

#include "base/error.h"

struct hy3_run;

/* Collective. Restores the checkpoint that resume_from_checkpoint names, if any; opens the log. The
 * last part of opening a run. */
hy3_status hy3_run_state_restore(struct hy3_run *run);

/* Collective. Saves a checkpoint of the run in its present state. */
hy3_status hy3_run_state_save(struct hy3_run *run);
