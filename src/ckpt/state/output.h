/* SPDX-License-Identifier: Apache-2.0 */
/* output.h - state.h5 as all ranks write it at once, through HDF5's MPI-IO driver.
 *
 * The states of the file and the invariants are in state/state.h. All functions but create and free
 * are called by the thread that alone calls HDF5 (comm/worker.h), since MPI-IO blocks. No other
 * part of the process may have the file open when it is closed: all descriptors of it but this
 * module's own are taken for HDF5's. */
#pragma once

#include "ckpt/state/file.h"

#include <mpi.h>

struct hy3_state_output; /* opaque */

/* Local. Prepares opening on this rank; bytes: size of the file. The caller owns *out
 * (hy3_state_output_free). */
hy3_status hy3_state_output_create(const char *path, int64_t bytes, struct hy3_state_output **out);

/* Local. Not for an output that is open. */
void hy3_state_output_free(struct hy3_state_output *output);

/* Collective on `comm`, but for the status, which is this rank's own. */
hy3_status hy3_state_output_open(struct hy3_state_output *output, MPI_Comm comm);

/* Collective, with a status as above. Closes the file if it is open; a rank that does not call it
 * lets the others wait. */
hy3_status hy3_state_output_close(struct hy3_state_output *output);

/* Local. Writes the values [slab->count] of a slab of `tensor`; the disk starts on them at once. */
hy3_status hy3_state_output_write(struct hy3_state_output *output,
                                  const struct hy3_state_tensor *tensor,
                                  const struct hy3_state_slab *slab, const float *values);

/* Local. Rows of the table of checksums. */
hy3_status hy3_state_output_checksums(struct hy3_state_output *output, struct hy3_span rows,
                                      const struct hy3_state_slab *slabs);

/* Local. Flushes what this rank wrote to the disk. */
hy3_status hy3_state_output_flush(struct hy3_state_output *output);
