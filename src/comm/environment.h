/* SPDX-License-Identifier: Apache-2.0 */
/* environment.h - what a program finds at its start: descriptors, limits, variables. For
 * hy3_start. */
#pragma once

#include "base/error.h"

/* Local, before MPI_Init. Descriptors 0 to 2 are open afterwards, the limits on open files and on
 * the stack as high as they may be set, the user's own bits of umask clear. OpenMP's threads spin
 * for a short time only: for that the program may be replaced by itself, once. */
void hy3_environment_prepare(char **argv);

/* Local. Warns of what is likely to hinder MPI. Until the next call with NULL an exit is MPI's that
 * could not start: one message, exit code 1. */
void hy3_environment_explain(const char *program);

/* Local. Whether the limits leave room to work. threads: of this rank. Errors: HY3_ENOMEM. */
hy3_status hy3_environment_check(int threads);
