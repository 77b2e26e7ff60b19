/* SPDX-License-Identifier: Apache-2.0 */
/* stop.h - SIGUSR1 and SIGTERM as requests to stop: Slurm's warning before the time limit, and
 * scancel. */
#pragma once

#include <mpi.h>

/* Local. From now on both signals are noted instead of ending the program. To be called before
 * hy3_start: the warning may come at once. */
void hy3_stop_catch(void);

/* Local. The signal this rank has noted, 0: none. */
int hy3_stop_noted(void);

/* "SIGUSR1", "SIGTERM". */
const char *hy3_stop_name(int signal);
