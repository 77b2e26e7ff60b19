/* SPDX-License-Identifier: Apache-2.0 */
/* stop.h - what signals mean to a program.
 *
 * SIGINT, SIGTERM, SIGUSR1 (Slurm's warning before the time limit) and SIGXCPU are requests to
 * stop: they are noted, and long work asks for them at places where it can be left. A second SIGINT
 * ends the process at once, code 130. SIGHUP, SIGPIPE and SIGUSR2 end nothing. */
#pragma once

#include "base/error.h"

#include <mpi.h>

/* Local. For hy3_start: hold delays all requests, until the process image is the final one;
 * catch_early notes them, SIGUSR1 excepted: MPI_Init puts in a handler of MPICH's own for it, after
 * which a run without a launcher waits for ever; catch replaces that one after MPI_Init. */
void hy3_stop_hold(void);
void hy3_stop_catch_early(void);
void hy3_stop_catch(void);

/* Collective on `comm`. From now on ranks can tell each other. */
void hy3_stop_join(MPI_Comm comm);

/* Local. What the line that a request prints at once says will happen, "ending after this step,
 * with a checkpoint"; a literal. */
void hy3_stop_announce(const char *what);

/* Local. The signal this rank has noted, 0: none. */
int hy3_stop_noted(void);

/* Local. From hy3_seconds() = `end` on, hy3_stop_check answers as after a request; 0: never. */
void hy3_stop_deadline(double end);

/* Local. HY3_STOPPED if this rank or another one has noted a request: for loops of local work that
 * ends in an agreement. A request need not reach all ranks: the rank that has one tells the others,
 * who would else go on to the end of their own work. Cheap; other threads than the main one learn
 * of another rank's request from the main one's calls. work: a participle, "tokenizing". */
hy3_status hy3_stop_check(const char *work);

/* "SIGUSR1", "SIGTERM". */
const char *hy3_stop_name(int signal);
