/* SPDX-License-Identifier: Apache-2.0 */
/* spool.h - an unlinked temporary file of one rank: appended to, then read back. It vanishes
 * with the process. */
#pragma once

#include "base/error.h"

struct hy3_spool; /* opaque */

/* Local. Creates the file in `directory`. Errors: HY3_EIO. The caller owns *out
 * (hy3_spool_close). */
hy3_status hy3_spool_open(const char *directory, struct hy3_spool **out);
void hy3_spool_close(struct hy3_spool *spool);

/* Local. Errors: HY3_EIO (disk full …). */
hy3_status hy3_spool_append(struct hy3_spool *spool, const void *data, size_t size);

/* Local. Exactly `size` bytes at `offset` of what was appended. */
hy3_status hy3_spool_read(struct hy3_spool *spool, void *data, size_t size, int64_t offset);
