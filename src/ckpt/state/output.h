/* SPDX-License-Identifier: Apache-2.0 */
/* output.h - state.h5 as all ranks write it at once, through HDF5's MPI-IO driver.
 *
 * 1. The file is laid out, has all its space and is closed before (state/layout.h): between open
 *    and close only values are written, each rank its own, and nothing of HDF5's is left to be
 *    written.
 * 2. What is to stay is flushed before the file is closed.
 * 3. Nobody else in the process has the file open when it is closed: all descriptors of it but the
 *    own are taken for HDF5's.
 * 4. One thread calls all this, and it is not the one that keeps the deadline: MPI-IO blocks
 *    (comm/worker.h). */
#ifndef HY3_CKPT_STATE_OUTPUT_H
#define HY3_CKPT_STATE_OUTPUT_H

#include "ckpt/state/file.h"

#include <mpi.h>

struct hy3_state_output; /* opaque */

/* Local. What opening needs on this rank; bytes: of the file. The caller owns *out
 * (hy3_state_output_free). */
hy3_status hy3_state_output_create(const char *path, int64_t bytes, struct hy3_state_output **out);

/* Local. Not for an output that is open. */
void hy3_state_output_free(struct hy3_state_output *output);

/* Collective on `comm`, but for the status, which is this rank's own. */
hy3_status hy3_state_output_open(struct hy3_state_output *output, MPI_Comm comm);

/* Collective, with a status as above. Closes what is open: without it the others would wait. */
hy3_status hy3_state_output_close(struct hy3_state_output *output);

/* Local. The values [slab->count] of a slab of `tensor`; the disk begins to work on them. */
hy3_status hy3_state_output_write(struct hy3_state_output *output,
                                  const struct hy3_state_tensor *tensor,
                                  const struct hy3_state_slab *slab, const float *values);

/* Local. `count` rows of the table of checksums. */
hy3_status hy3_state_output_checksums(struct hy3_state_output *output, int64_t first, int64_t count,
                                      const struct hy3_state_slab *slabs);

/* Local. What this rank wrote is on the disk. */
hy3_status hy3_state_output_flush(struct hy3_state_output *output);

#endif
