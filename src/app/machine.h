/* SPDX-License-Identifier: Apache-2.0 */
/* machine.h - measures what the CPUs of this machine do in a second, for hy3_plan's seconds. */
#pragma once

#include "backend/backend.h"
#include "backend/dry/rates.h"
#include "config/config.h"
#include "model/shape.h"

/* Collective on `comm`, with the ranks of a node and the threads of the run whose seconds are
 * wanted. Trains a part of the model that is done in some seconds, all of it if it is small, each
 * rank for itself and all at once, in both dtypes; then finds the rates at which a plan of the same
 * takes as long, operation by operation; then times transfers between the ranks. In at most a
 * minute. *rates is set on rank 0. Errors: HY3_ENOMEM. */
hy3_status hy3_machine_measure(MPI_Comm comm, const struct hy3_config *config,
                               const struct hy3_shape *shape, struct hy3_rates *rates);

/* Collective on `comm`. The same, written into `file` for hy3_plan --rates. Errors: also those of
 * app/rates.h. */
hy3_status hy3_machine_probe(MPI_Comm comm, const struct hy3_config *config,
                             const struct hy3_shape *shape, const char *file);

/* Collective on `comm`. The latter alone: links and their latencies; a single rank has memory's. */
hy3_status hy3_machine_links(MPI_Comm comm, const struct hy3_backend *backend,
                             struct hy3_rates *rates);
