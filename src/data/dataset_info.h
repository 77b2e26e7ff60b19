/* SPDX-License-Identifier: Apache-2.0 */
/* dataset_info.h - data sets by name, as LLaMA-Factory's dataset_info.json describes them. */
#pragma once

#include "base/error.h"

/* Local. The files that `names` stand for in `directory`/dataset_info.json (LLaMA-Factory): entries
 * with "file_name" whose lines have "messages" with "role" and "content". Errors: HY3_EUSAGE for an
 * unknown name (the known ones are listed) or an entry of another form; HY3_EFORMAT, HY3_EIO. The
 * caller owns *files [*file_count] (hy3_dataset_info_free). */
hy3_status hy3_dataset_info_resolve(const char *directory, char *const *names, int count,
                                    char ***files, int *file_count);
void hy3_dataset_info_free(char **files, int count);
