/* SPDX-License-Identifier: Apache-2.0 */
/* token_maker.h - builds a token file from the data files. */
#pragma once

#include "base/output.h"
#include "data/dataset_options.h"
#include "data/sources.h"
#include "text/tokenizer.h"

struct hy3_token_files { /* on rank 0 they wait for their final names */
    struct hy3_output tokens, rejects;
    int64_t taken_over; /* pieces that a run which was ended had tokenized; on all ranks */
};

/* Local, on rank 0. Both get their final names, or are removed. */
hy3_status hy3_token_files_publish(struct hy3_token_files *files);
void hy3_token_files_discard(struct hy3_token_files *files);

/* Local. Removes what programs that were killed have left of NAME's files in the directory; the
 * lock of the token file must be held. */
void hy3_token_files_sweep(const char *directory, const char *name);

/* Collective on `comm`. Writes what is to become `path` and NAME.rejected.jsonl in the cache
 * directory; files->tokens has its names on all ranks. After bad data only the rejected lines are
 * published. Errors: HY3_EFORMAT listing the bad lines, or when no sample is left; HY3_EIO. */
hy3_status hy3_token_file_make(MPI_Comm comm, const struct hy3_dataset_options *options,
                               struct hy3_tokenizer *tokenizer, const struct hy3_source *sources,
                               const char *path, struct hy3_token_files *files);
