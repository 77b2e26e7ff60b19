/* SPDX-License-Identifier: Apache-2.0 */
/* yaml.h - the YAML and JSON of other tools to settings. */
#pragma once

#include "config/settings.h"

enum { HY3_YAML_KEY = 256 }; /* bytes that a key of YAML, joined by dots, fits into */

/* Local. Reads one document whose top level is a map. Keys of maps in maps are joined by dots:
 * "lr_scheduler_kwargs.min_lr". A value is HY3_VALUE_WORD, as it is written; HY3_VALUE_NULL, also
 * of an empty map; HY3_VALUE_LIST; or HY3_VALUE_MIXED, a list that has more than scalars in it.
 * All mistakes go to `problems`, with file and line: syntax, of which nothing else is read, a key
 * given twice, unknown tags, aliases that grow beyond all bounds. Errors: HY3_ENOMEM. */
hy3_status hy3_yaml_read(const char *text, size_t size, const char *path,
                         struct hy3_settings *settings, struct hy3_problems *problems);

/* Local. The same of JSON, `size` bytes and a NUL; its keys are of any length. prefix: stands
 * before every key. */
hy3_status hy3_json_settings(const char *text, size_t size, const char *path, const char *prefix,
                             struct hy3_settings *settings, struct hy3_problems *problems);

/* Local. Resolves ${key} and ${oc.env:NAME,default} in the texts of the settings (OmegaConf's
 * interpolation). What names nothing, or leads back to itself, goes to `problems`. */
hy3_status hy3_interpolate(struct hy3_settings *settings, struct hy3_problems *problems);
