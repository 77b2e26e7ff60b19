/* SPDX-License-Identifier: Apache-2.0 */
/* check.h - what must hold between keys, and what a program cannot do without. */
#pragma once

#include "config/options.h"
#include "config/settings.h"

/* Local. Whether what offload moves and where it goes suit zero_stage. */
bool hy3_config_can_offload(const struct hy3_config *config);

/* Local. given: [hy3_option_count()] the setting that gave each option its value, NULL for a
 * default. program: its needs are checked, "hy3_tokenize"; others need what hy3_sft needs. Errors:
 * HY3_ENOMEM. */
hy3_status hy3_config_check(const struct hy3_config *config, const struct hy3_setting *const *given,
                            const char *program, struct hy3_problems *problems);
