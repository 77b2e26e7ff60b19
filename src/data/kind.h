/* SPDX-License-Identifier: Apache-2.0 */
/* kind.h - files that are no JSON Lines, recognised by their first bytes. */
#pragma once

#include "base/error.h"

enum { HY3_KIND_BYTES = 4096 };

/* Local. `bytes`: the first HY3_KIND_BYTES of the file, or all if it has fewer. Errors:
 * HY3_EFORMAT, which names what the file is and what to do. */
hy3_status hy3_kind_check(const char *path, const char *bytes, size_t size);
