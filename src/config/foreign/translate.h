/* SPDX-License-Identifier: Apache-2.0 */
/* translate.h - settings of another tool to settings of ours. */
#pragma once

#include "config/foreign/keys.h"
#include "config/settings.h"

/* Local. The origin of a YAML or JSON file, by its keys. */
enum hy3_origin hy3_origin_of(const struct hy3_settings *given);

/* Local, on one rank: it looks for files. Puts what `given` (yaml.h, flags.h) says into `ours`,
 * with the tool's own defaults where they differ from ours, so that an absent key has the value it
 * has there. path: of the file, NULL: flags. ranks: of the run, 0: not known. notes: lines for the
 * log: the keys that have no meaning here, files found beside the one that names them. What is
 * wrong, unknown or not available goes to `problems`, all of it. Errors: HY3_ENOMEM, HY3_EIO. */
hy3_status hy3_foreign_translate(enum hy3_origin origin, const char *path,
                                 const struct hy3_settings *given, struct hy3_settings *ours,
                                 int ranks, struct hy3_list *notes, struct hy3_problems *problems);

/* Local. Appends the settings of flags to `given`: "[a, b]" as a list, "null" as null. */
hy3_status hy3_foreign_take_flags(struct hy3_settings *given, const struct hy3_settings *flags);

/* Local. Takes arguments, key=value, into `given`, in place of what has the same meaning. Their
 * values are YAML (OmegaConf.from_cli), or the bare text where they are none. Values in quotes or
 * brackets that are none go to `problems`. Errors: HY3_ENOMEM. */
hy3_status hy3_foreign_override(enum hy3_origin origin, struct hy3_settings *given,
                                const struct hy3_settings *overrides,
                                struct hy3_problems *problems);

/* Local. ms-swift turns a file into flags, where null becomes the word None: null here too. */
void hy3_foreign_settle_nulls(enum hy3_origin origin, struct hy3_settings *given);
