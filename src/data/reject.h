/* SPDX-License-Identifier: Apache-2.0 */
/* reject.h - lines that were left out, and the file that says so. */
#ifndef HY3_DATA_REJECT_H
#define HY3_DATA_REJECT_H

#include "data/tokenize.h"

struct hy3_reject { /* one line, as kept in a spool */
    int64_t line;   /* in the portion, from 0 */
    bool is_bad;    /* else dropped */
    char reason[503];
};

enum { HY3_BAD_LISTED_BYTES = 3000 };

struct hy3_bad_list { /* the first bad lines, for a message: "\n  FILE:LINE: reason" each */
    char text[HY3_BAD_LISTED_BYTES];
    int64_t count; /* lines in the text */
};

/* Cuts a reason that is too long between characters. */
void hy3_reject_fill(struct hy3_reject *reject, int64_t line, bool is_bad, const char *reason);

/* Collective on `comm`. Replaces `path` by one object a line: {"file", "line", "reason"}, sorted by
 * file and line; *list is filled on rank 0. Errors: HY3_EIO. */
hy3_status hy3_reject_write(MPI_Comm comm, const struct hy3_tokenized *tokenized, const char *path,
                            struct hy3_bad_list *list);

#endif
