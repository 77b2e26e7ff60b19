/* SPDX-License-Identifier: Apache-2.0 */
/* end.h - how the program ends: all ranks together, or the whole job at once. */
#pragma once

#include "base/error.h"

/* Collective on MPI_COMM_WORLD. Rank 0 prints the one error message; MPI_Finalize; returns the exit
 * code. `status` must have been agreed on. */
int hy3_finish(hy3_status status);

/* Local. The process ends with this status's exit code in so many seconds, whatever hangs then; 0:
 * it does not any more. */
void hy3_end_later(hy3_status status, unsigned seconds);

/* Local. Ends the whole job at once with this status's exit code, after its message has been
 * written to standard error. */
_Noreturn void hy3_end_job(hy3_status status);
