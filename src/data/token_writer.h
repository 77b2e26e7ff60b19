/* SPDX-License-Identifier: Apache-2.0 */
/* token_writer.h - all ranks write the token file that token_file.h describes. */
#pragma once

#include "data/token_file.h"
#include "data/tokenize.h"

/* Collective on `comm`. Replaces `path` by dataset.h's first invariant; two jobs at once do not
 * disturb each other. The fields of `header` for places and the file itself are not read. Errors:
 * HY3_EIO, HY3_ENOMEM. */
hy3_status hy3_token_file_write(MPI_Comm comm, const char *path,
                                const struct hy3_token_header *header, enum hy3_dialect dialect,
                                const struct hy3_source *sources, int file_count,
                                const struct hy3_tokenized *tokenized);

/* Test only: datasets of `bytes` or more are written by collective calls. */
void hy3_token_file_collective(int64_t bytes);
