/* SPDX-License-Identifier: Apache-2.0 */
/* list.h - the checkpoints of an output directory by their names, checkpoint-N. */
#pragma once

#include "base/error.h"

/* Local. Steps of the checkpoints in a directory, newest first; the caller owns *steps
 * (hy3_free). */
hy3_status hy3_checkpoints_list(const char *directory, int64_t **steps, size_t *count);

/* The step in the name of a checkpoint, -1 for any other name. */
int64_t hy3_checkpoint_step(const char *name);

/* Local. "checkpoint-12, checkpoint-8": as many as fit, newest first; "no checkpoint" where there
 * is none. */
void hy3_checkpoints_describe(const char *directory, char *out, size_t size);

/* Local. HY3_EFORMAT if the directory bears the name of a checkpoint, but not that of this step: a
 * "checkpoint-007", a state.h5 that was moved between checkpoints. Other names say nothing. */
hy3_status hy3_checkpoint_check_name(const char *directory, int64_t step);
