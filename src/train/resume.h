/* SPDX-License-Identifier: Apache-2.0 */
/* resume.h - where a run stands: saved with a checkpoint, continued from one. */
#ifndef HY3_TRAIN_RESUME_H
#define HY3_TRAIN_RESUME_H

#include "base/error.h"

struct hy3_run;

/* Collective. Continues from the checkpoint that resume_from_checkpoint names, or begins; opens the
 * log. The last part of opening a run. */
hy3_status hy3_resume(struct hy3_run *run);

/* Collective. Saves a checkpoint of the run as it stands. */
hy3_status hy3_resume_save(struct hy3_run *run);

#endif
