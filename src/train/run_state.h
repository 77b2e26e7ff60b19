/* SPDX-License-Identifier: Apache-2.0 */
/* run_state.h - the progress of a run: saved with a checkpoint, restored from one. */
#pragma once

#include "train/output_dir.h"

struct hy3_run;

/* What output_dir needs to know of the run; its data must be open. */
struct hy3_run_facts hy3_run_state_facts(const struct hy3_run *run);

/* Collective. Restores the checkpoint that output_dir's decision names, if any. */
hy3_status hy3_run_state_restore(struct hy3_run *run);

/* Collective. Saves a checkpoint of the run in its present state. with_state: also with
 * save_only_model. */
hy3_status hy3_run_state_save(struct hy3_run *run, bool with_state);
