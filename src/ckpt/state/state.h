/* SPDX-License-Identifier: Apache-2.0 */
/* state.h - the state of a training run as one HDF5 file that all ranks write and read at once.
 *
 * Each rank writes its share of every tensor through parallel HDF5; nothing is gathered anywhere,
 * and nothing in the file says how many ranks wrote it. What is read is checked against the
 * checksums of those who wrote it. */
#ifndef HY3_CKPT_STATE_STATE_H
#define HY3_CKPT_STATE_STATE_H

#include "ckpt/state/file.h"

#include <mpi.h>

/* Collective on `comm`. Writes all trained tensors of the table, of each this rank's share. The
 * file is complete and flushed after HY3_OK; its directory is the caller's business. Nobody else may
 * call HDF5 meanwhile. `values` is asked by this thread; HDF5 and MPI-IO are called by another one.
 * Needs 16 MiB. */
hy3_status hy3_state_write(MPI_Comm comm, const char *path, const struct hy3_params *params,
                           const struct hy3_state_info *info, const char *configuration,
                           struct hy3_values values);

struct hy3_state; /* opaque: a file that is open for reading */

/* Collective on `comm`. Reads and checks all but the tensors. The caller owns *out
 * (hy3_state_close). Errors: HY3_EFORMAT, HY3_EIO naming what is damaged. */
hy3_status hy3_state_open(MPI_Comm comm, const char *path, struct hy3_state **out);
void hy3_state_close(struct hy3_state *state);

const struct hy3_state_info *hy3_state_info(const struct hy3_state *state);
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

/* Whether the file has a tensor of that name. */
bool hy3_state_has(const struct hy3_state *state, const char *name);

#endif
