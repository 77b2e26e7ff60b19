/* SPDX-License-Identifier: Apache-2.0 */
/* strategy.h - when theirs saves and evaluates, for the files of this folder. */
#pragma once

#include "config/foreign/translation.h"

/* Local. save_strategy, eval_strategy: the word. */
hy3_status hy3_put_save_strategy(struct hy3_translation *t, const struct hy3_setting *s);
hy3_status hy3_put_eval_strategy(struct hy3_translation *t, const struct hy3_setting *s);

/* Local. When all keys are there: the steps that go with the words. */
hy3_status hy3_put_intervals(struct hy3_translation *t);
