/* SPDX-License-Identifier: Apache-2.0 */
/* abort.h - the end of the job by one rank that has failed. */
#pragma once

#include "base/error.h"

/* Local. Ends the whole job at once with the thread's error text and this status's exit code: for a
 * failure on one rank inside collective work, where the others cannot be told. Of ranks that fail
 * at the same time one reports. phase: a participle, "training step 12". */
_Noreturn void hy3_abort(hy3_status status, const char *phase);
