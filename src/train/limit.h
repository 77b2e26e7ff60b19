/* SPDX-License-Identifier: Apache-2.0 */
/* limit.h - max_hours: whether what comes next still fits. Counted is all that follows a step
 * before the run can stop again: the evaluation, the checkpoint and behind the last step the model,
 * as long as each took last time, or an estimate where there was none. */
#pragma once

#include <stdbool.h>

struct hy3_run;
struct hy3_limit;

/* Local. From now on. */
void hy3_limit_begin(struct hy3_limit *limit, double max_hours);

/* Local. Whether a checkpoint would just fit now. */
bool hy3_limit_is_near(const struct hy3_run *run);

/* Local. Whether the next step and what it entails do not fit. */
bool hy3_limit_stops(const struct hy3_run *run, bool evaluates, bool is_last);

/* Local. Whether writing the result does not fit. */
bool hy3_limit_stops_write(const struct hy3_run *run);
