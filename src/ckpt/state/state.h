/* SPDX-License-Identifier: Apache-2.0 */
/* state.h - the state of a training run as one HDF5 file that all ranks write and read at once.
 *
 * Each rank writes its share of every tensor through parallel HDF5; nothing is gathered anywhere,
 * and nothing in the file says how many ranks wrote it. What is read is checked against the
 * checksums of those who wrote it. */
#ifndef HY3_CKPT_STATE_STATE_H
#define HY3_CKPT_STATE_STATE_H

#include "ckpt/hf/writer.h"
#include "ckpt/state/file.h"

/* Values of a trained tensor's master or moment: asked for when writing, handed out when
 * reading. */
typedef hy3_status (*hy3_state_source)(void *context, enum hy3_optimizer_field field,
                                       const struct hy3_param *param, int64_t first, int64_t count,
                                       float *values);
typedef hy3_status (*hy3_state_sink)(void *context, enum hy3_optimizer_field field,
                                     const struct hy3_param *param, int64_t first, int64_t count,
                                     const float *values);

/* Collective on `comm`. Writes all trained tensors of the table. share: the range of a tensor that
 * falls to this rank. The file is complete and flushed after HY3_OK; its directory is the caller's
 * business. Nobody else may call HDF5 meanwhile. `source` is called by this thread; HDF5 and MPI-IO
 * by another one. Needs 16 MiB. */
hy3_status hy3_state_write(MPI_Comm comm, const char *path, const struct hy3_params *params,
                           const struct hy3_state_info *info, const char *configuration,
                           hy3_state_source source, hy3_hf_share share, void *context);

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

/* Local. Hands out what this rank wants of every tensor and checks the checksum of all that it
 * touches. wants: as share when writing; ranges of ranks may overlap. Errors: HY3_EFORMAT naming
 * tensor and range of the first slab that is damaged. */
hy3_status hy3_state_load(const struct hy3_state *state, const struct hy3_params *params,
                          hy3_hf_share wants, hy3_state_sink sink, void *context);

/* Local. Checks the slabs that fall to this rank when all ranks share them. Errors as above. */
hy3_status hy3_state_verify(const struct hy3_state *state, int rank, int ranks);

/* Local. Elements of a tensor by its name, unchecked; HY3_EUSAGE if it is not there. */
hy3_status hy3_state_read(const struct hy3_state *state, enum hy3_optimizer_field field,
                          const char *name, int64_t first, int64_t count, float *values);

/* Whether the file has a tensor of that name. */
bool hy3_state_has(const struct hy3_state *state, const char *name);

#endif
