/* SPDX-License-Identifier: Apache-2.0 */
/* layout.h - state.h5 as one rank makes it: all its space, groups, datasets and attributes,
 * before any values are there.
 *
 * HDF5 lays the file out in memory, and what it wrote is copied: HDF5 1.10 is left half open by a
 * disk that fails, and crashes when MPI ends (seen). The mark that the file is complete is made in
 * memory as well, with what else it changes (HDF5's checksums), and kept as bytes to be written at
 * the end. */
#ifndef HY3_CKPT_STATE_LAYOUT_H
#define HY3_CKPT_STATE_LAYOUT_H

#include "ckpt/state/file.h"

struct hy3_state_layout; /* opaque */

/* Local. A new file with room for everything and without the mark: fills in the offsets and
 * file_bytes of the index, whose other fields but the slabs themselves are given. path: kept.
 * Errors: HY3_EIO, a full disk among them. The caller owns *out. */
hy3_status hy3_state_layout_create(const char *path, struct hy3_state_index *index,
                                   struct hy3_state_layout **out);
void hy3_state_layout_free(struct hy3_state_layout *layout);

/* Local. Says that the file is complete, and flushes it. */
hy3_status hy3_state_layout_complete(const struct hy3_state_layout *layout);

#endif
