/* SPDX-License-Identifier: Apache-2.0 */
/* assign.h - puts settings into the configuration: types, ranges, defaults. */
#pragma once

#include "config/options.h"
#include "config/settings.h"

/* Local. Frees what *config holds and fills it with the defaults. Errors: HY3_ENOMEM. */
hy3_status hy3_config_defaults(struct hy3_config *config);

/* Local. Puts the setting into the option's field, or an argument into its variable. A wrong value
 * goes to `problems` and leaves the field alone. An empty text or list is the default of a key.
 * Errors: HY3_ENOMEM. */
hy3_status hy3_option_assign(const struct hy3_option *option, const struct hy3_setting *setting,
                             struct hy3_config *config, struct hy3_problems *problems);

/* Local. Splits a word of the command line into texts: a,b or ["a", "b"]; quotes may be left out
 * where a text has no comma and no blank at its ends. *valid is false for an open quote. Errors:
 * HY3_ENOMEM. */
hy3_status hy3_word_split(const char *word, struct hy3_list *texts, bool *valid);
