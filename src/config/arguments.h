/* SPDX-License-Identifier: Apache-2.0 */
/* arguments.h - the command line of every program: --name value, --name=value, words, and with a
 * configuration also CONFIG and key=value. */
#pragma once

#include "config/help.h"

#include <mpi.h>

/* Collective on `comm`. Fills the variables of the arguments and the configuration; texts are
 * borrowed from argv. --help, --version and --write-reference=man (with a configuration also =md)
 * print to standard output on rank 0 and set *finished; the caller then leaves with HY3_OK. All
 * errors of arguments and file are reported together: HY3_EUSAGE. */
hy3_status hy3_arguments_parse(MPI_Comm comm, const struct hy3_usage *usage, int argc, char **argv,
                               bool *finished);
