/* SPDX-License-Identifier: Apache-2.0 */
/* schedule.h - the learning-rate schedule of theirs, for the files of this folder. */
#pragma once

#include "config/foreign/translation.h"

/* Local. lr_scheduler_type: refused by name where it follows the loss. */
hy3_status hy3_put_schedule(struct hy3_translation *t, const struct hy3_setting *s);

/* Local. When all keys are there: arguments that the schedule does not have, or lacks. */
void hy3_check_schedule(struct hy3_translation *t);
