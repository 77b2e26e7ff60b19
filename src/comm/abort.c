/* SPDX-License-Identifier: Apache-2.0 */
/* abort.c - one message, then the end. */
#include "comm/abort.h"

#include "base/log.h"
#include "comm/end.h"
#include "comm/group.h"
#include "comm/wait.h"

#include <stdio.h>

void hy3_abort(hy3_status status, const char *phase)
{
    hy3_wait_turn();
    fprintf(stderr, "%s: error: %s (rank %d, %s)\n", hy3_log_program(), hy3_error_text(),
            hy3_rank(MPI_COMM_WORLD), phase);
    hy3_end_job(status);
}
