/* SPDX-License-Identifier: Apache-2.0 */
/* state.h - the state of a training run as one HDF5 file that all ranks write and read at once.
 *
 * Each rank writes its share of every tensor through parallel HDF5; nothing is gathered on a rank,
 * and nothing in the file depends on the number of ranks but the cut into slabs.
 *
 * The states of checkpoint-N.part/state.h5, and the functions that move it from one to the next:
 *
 *     NONE         the file does not exist
 *      |             hy3_state_layout_create          rank 0
 *     LAID OUT     it has its final size; groups, datasets and attributes are written, `complete`
 *      |           is 0; values and checksums are missing
 *      |             hy3_state_output_open            collective
 *     OPEN         for MPI-IO, on all ranks
 *      |             hy3_state_output_write           each rank its share, slab by slab
 *      |             hy3_state_output_checksums       each rank its rows
 *     WRITTEN      by this rank
 *      |             hy3_state_output_flush           each rank
 *     FLUSHED      what this rank wrote is on the disk
 *      |             hy3_agree                        collective
 *      |             hy3_state_output_close           collective
 *     CLOSED       all ranks know that all values are on the disk
 *      |             hy3_state_layout_complete        rank 0: writes `complete` = 1, flushes
 *     COMPLETE     may be read; hy3_state_write returns HY3_OK
 *      |             publish() of train/checkpoint.c  rank 0: renames checkpoint-N.part to
 *      |                                              checkpoint-N, flushes the directory
 *     PUBLISHED    is found by hy3_checkpoints_resume
 *
 * A failure in any state is agreed on by all ranks and leaves the file in the state it has; judge()
 * of train/checkpoint.c removes the .part directory. After a crash the next save of the same step
 * does so. A rank that fails while the file is open still takes part in the close.
 *
 * Invariants
 *  1. The mark `complete` is 1 only if all values and checksums are on the disk: it is written
 *     after the agreement on all flushes. Readers refuse a file without it.
 *  2. Size and place of everything are final from LAID OUT on. The space is claimed there, so that
 *     a full disk is met before any value is written.
 *  3. Between open and close only values are written, and each element by exactly one rank (`share`
 *     of struct hy3_values). No metadata of HDF5 is left to be written by the close.
 *  4. The file is open on all ranks or on none, since opening and closing are collective: a rank
 *     that cannot open it while another can ends the job.
 *  5. One thread of a rank calls HDF5 and MPI-IO, and it is not the one that waits with a deadline.
 *  6. A slab's checksum is of the values that were handed to HDF5. hy3_state_load checks every slab
 *     that it reads, so that a damaged file is noticed before training continues.
 *  7. An older checkpoint is removed only after PUBLISHED. */
#pragma once

#include "ckpt/state/file.h"

#include <mpi.h>

/* Collective on `comm`. Writes all trained tensors of the table, of each this rank's share. The
 * file is complete and flushed after HY3_OK; its directory is the caller's business. Nobody else
 * may call HDF5 meanwhile. `values` is asked by this thread; HDF5 and MPI-IO are called by another
 * one. is_private: only its owner may read the file. Needs 16 MiB. */
hy3_status hy3_state_write(MPI_Comm comm, const char *path, bool is_private,
                           const struct hy3_params *params, const struct hy3_state_info *info,
                           const char *configuration, struct hy3_values values);

/* Bytes of the values of such a file, in all. */
double hy3_state_bytes(const struct hy3_params *params);

struct hy3_state; /* opaque: a file that is open for reading */

/* Collective on `comm`. Reads and checks all but the tensors. The caller owns *out
 * (hy3_state_close). Errors: HY3_EFORMAT, HY3_EIO naming what is damaged. */
hy3_status hy3_state_open(MPI_Comm comm, const char *path, struct hy3_state **out);
void hy3_state_close(struct hy3_state *state);

const struct hy3_state_info *hy3_state_info(const struct hy3_state *state);

/* The resolved configuration of the run that saved it, as config.cfg has it. */
const char *hy3_state_configuration(const struct hy3_state *state);

/* Local. Whether the file's tensors are exactly the trained ones of the table; HY3_EUSAGE naming
 * the first that is not. */
hy3_status hy3_state_matches(const struct hy3_state *state, const struct hy3_params *params);

/* Local. Puts what `values` keep of every trained tensor and checks the checksum of all that it
 * reads. Errors: HY3_EFORMAT naming tensor and range of the first slab that is damaged. */
hy3_status hy3_state_load(const struct hy3_state *state, const struct hy3_params *params,
                          struct hy3_values values);

/* Local. Checks the slabs that fall to this rank when all ranks share them. Errors as above. */
hy3_status hy3_state_verify(const struct hy3_state *state, int rank, int ranks);

/* The file's tensors, to get, by their names and unchecked; HY3_EUSAGE if one is not there. */
struct hy3_values hy3_state_values(struct hy3_state *state);
