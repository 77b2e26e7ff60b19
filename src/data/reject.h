/* SPDX-License-Identifier: Apache-2.0 */
/* reject.h - the file of rejected lines. */
#pragma once

#include "base/output.h"
#include "data/tokenize.h"

enum { HY3_BAD_LISTED_BYTES = 3000 };

struct hy3_bad_list { /* the first bad lines, for a message: "\n  FILE:LINE: reason" each */
    char text[HY3_BAD_LISTED_BYTES];
    int64_t count; /* lines in the text */
};

/* Collective on `comm`. Writes what is to become `path`, one object a line: {"file", "line",
 * "reason"}, sorted by file and line. On rank 0 *list is filled, and *output is the caller's:
 * hy3_output_publish or hy3_output_discard. output->is_private is given. Errors: HY3_EIO. */
hy3_status hy3_reject_write(MPI_Comm comm, const struct hy3_tokenized *tokenized, const char *path,
                            struct hy3_bad_list *list, struct hy3_output *output);
