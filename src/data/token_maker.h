/* SPDX-License-Identifier: Apache-2.0 */
/* token_maker.h - builds a token file from the data files. */
#pragma once

#include "base/output.h"
#include "data/dataset_options.h"
#include "data/sources.h"
#include "text/tokenizer.h"

/* Collective on `comm`. Writes what is to become `path` (*output: hy3_token_file_write), and
 * replaces NAME.rejected.jsonl in the cache directory. Errors: HY3_EFORMAT listing the bad lines,
 * or when no sample is left; HY3_EIO. */
hy3_status hy3_token_file_make(MPI_Comm comm, const struct hy3_dataset_options *options,
                               struct hy3_tokenizer *tokenizer, const struct hy3_source *sources,
                               const char *path, struct hy3_output *output);
