/* SPDX-License-Identifier: Apache-2.0 */
/* token_writer.h - all ranks write the token file that token_file.h describes. */
#pragma once

#include "base/output.h"
#include "data/token_file.h"
#include "data/tokenize.h"

/* Collective on `comm`. Writes a complete file that is to become `path`; two jobs at once do not
 * disturb each other. Its final name it gets from the caller: hy3_output_publish on rank 0, or
 * hy3_output_discard; *output has both names on all ranks, output->is_private is given. The fields
 * of `header` for places and the file itself are not read. Errors: HY3_EIO, HY3_ENOMEM. */
hy3_status hy3_token_file_write(MPI_Comm comm, const char *path,
                                const struct hy3_token_header *header, enum hy3_dialect dialect,
                                const struct hy3_source *sources, int file_count,
                                const struct hy3_tokenized *tokenized, struct hy3_output *output);

/* Test only: datasets of `bytes` or more are written by collective calls. */
void hy3_token_file_collective(int64_t bytes);
