/* SPDX-License-Identifier: Apache-2.0 */
/* checkpoint.h - output_dir/checkpoint-N: writing checkpoints, with save_async while training goes
 * on, removing old ones, and loading the one to resume from.
 *
 * A checkpoint is written as checkpoint-N.part and renamed when it is complete and flushed; an
 * older one, of the same step or another, is removed only after that. Never removed are the one
 * that this run wrote last and, where the best counts, the best one. One save at a time: a new one
 * waits for the one before. */
#pragma once

#include "app/loaded_model.h"
#include "ckpt/state/list.h"
#include "ckpt/state/state.h"
#include "config/config.h"
#include "optim/sharded_optimizer.h"
#include "train/output_dir.h"

struct hy3_checkpoints; /* opaque */

/* Collective on the model's world. All are kept until hy3_checkpoints_close. The caller owns
 * *out. */
hy3_status hy3_checkpoints_open(const struct hy3_config *config,
                                const struct hy3_loaded_model *model,
                                struct hy3_sharded_optimizer *optimizer, struct hy3_output_dir *dir,
                                struct hy3_checkpoints **out);

/* Collective. Waits for a running save, whose failure is lost: call hy3_checkpoints_wait first. */
void hy3_checkpoints_close(struct hy3_checkpoints *checkpoints);

/* Collective. Saves a checkpoint after step info->step; done on return unless save_async.
 * with_state: also where save_only_model leaves it out, so that the run can be continued. A failed
 * save, this one or the one that was running, is an error or (save_failure = continue) a
 * warning. */
hy3_status hy3_checkpoints_save(struct hy3_checkpoints *checkpoints,
                                const struct hy3_state_info *info, bool with_state);

/* Collective. Waits for a running save. Errors as above. */
hy3_status hy3_checkpoints_wait(struct hy3_checkpoints *checkpoints);

/* The step of the last complete checkpoint of this process that can be continued, 0: none; what is
 * being saved does not count. */
int64_t hy3_checkpoints_newest(const struct hy3_checkpoints *checkpoints);

/* The record of the best checkpoint, as of the last complete one; to be corrected by the caller
 * where a later evaluation finds another. Zero: none. */
struct hy3_state_best *hy3_checkpoints_best(struct hy3_checkpoints *checkpoints);

/* Whether the run goes on from a checkpoint that is not in output_dir. */
bool hy3_checkpoints_is_elsewhere(const struct hy3_checkpoints *checkpoints);

/* Collective. Loads the best checkpoint, which there must be, into the optimizer: for the result.
 * Errors: of a damaged or foreign state. */
hy3_status hy3_checkpoints_load_best(struct hy3_checkpoints *checkpoints,
                                     const struct hy3_state_info *expected);

/* Seconds that writing the last checkpoint took. */
double hy3_checkpoints_seconds(const struct hy3_checkpoints *checkpoints);

/* Collective. Loads into the optimizer what hy3_output_dir_decide chose: the named checkpoint, or
 * the newest, where damaged ones are skipped with a warning; it is an error if all are damaged or
 * one is of another run. *info stays as it is where there is nothing to load. expected: seed,
 * global batch and data of this run. */
hy3_status hy3_checkpoints_resume(struct hy3_checkpoints *checkpoints,
                                  const struct hy3_state_info *expected,
                                  struct hy3_state_info *info);
