/* SPDX-License-Identifier: Apache-2.0 */
/* run_state.h - the progress of a run: saved with a checkpoint, restored from one. */
#pragma once

#include "train/best.h"
#include "train/output_dir.h"

struct hy3_run;

/* What output_dir needs to know of the run; its data must be open. */
struct hy3_run_facts hy3_run_state_facts(const struct hy3_run *run);

/* Collective. Restores the checkpoint that output_dir's decision names, if any. */
hy3_status hy3_run_state_restore(struct hy3_run *run);

/* Collective. Saves a checkpoint of the run in its present state. with_state: also with
 * save_only_model. metric: of the evaluation of this step, where the checkpoint may become the best
 * one; NULL: it may not. */
hy3_status hy3_run_state_save(struct hy3_run *run, bool with_state, const double *metric);

/* Collective. Loads the best checkpoint, which there must be: for the result. */
hy3_status hy3_run_state_load_best(struct hy3_run *run);

/* How evaluations are compared. */
struct hy3_best_rules hy3_run_state_rules(const struct hy3_run *run);
