/* SPDX-License-Identifier: Apache-2.0 */
/* dataset_info.h - data sets by name, as LLaMA-Factory's dataset_info.json describes them. */
#pragma once

#include "data/named_data.h"

/* Local. What `names` stand for in `directory`/dataset_info.json (LLaMA-Factory, data/parser.py):
 * files, or the files of a directory, and the form of their lines. Errors: HY3_EUSAGE for an
 * unknown name (the known ones are listed), an entry without a local file or for another kind of
 * training; HY3_EFORMAT, HY3_EIO. */
hy3_status hy3_dataset_info_resolve(const char *directory, char *const *names, int count,
                                    struct hy3_named_data *out);
