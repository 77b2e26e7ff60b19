/* SPDX-License-Identifier: Apache-2.0 */
/* unread.h - how many lines have which keys that hy3 does not read, over all ranks. */
#pragma once

#include "base/error.h"

#include <jansson.h>
#include <mpi.h>

struct hy3_unread; /* opaque: this rank's lines and names */

/* Local. Keeps a spool in `directory`. The caller owns *out (hy3_unread_free). */
hy3_status hy3_unread_create(const char *directory, struct hy3_unread **out);
void hy3_unread_free(struct hy3_unread *unread);

/* Local. Line `line` of a portion has the keys of the object `names`; portions in ascending order.
 * Of a portion's names HY3_UNREAD_NAMES are told apart. Errors: HY3_EIO, HY3_ENOMEM. */
enum { HY3_UNREAD_NAMES = 64 };

hy3_status hy3_unread_add(struct hy3_unread *unread, int64_t portion, int64_t line, json_t *names);

/* Collective on `comm`. The text "messages[].name (3 lines), …", most lines first; the same for any
 * number of ranks. Of portion p the first lines[p * stride] lines count. */
hy3_status hy3_unread_sum(MPI_Comm comm, struct hy3_unread *unread, const int64_t *lines,
                          size_t stride, char *out, size_t size);
