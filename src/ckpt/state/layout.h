/* SPDX-License-Identifier: Apache-2.0 */
/* layout.h - creates state.h5 on one rank: all its space, groups, datasets and attributes, before
 * there are values.
 *
 * Laid out in memory (base/hdf5_image.h); the mark `complete` is written at the end, with the seal
 * of the metadata (base/hdf5_seal.h). */
#pragma once

#include "ckpt/state/file.h"

struct hy3_state_layout; /* opaque */

/* Local. Creates a file with room for everything and without the mark, and sets the offsets and
 * file_bytes of the index; its other fields, except the slabs themselves, are given. path: kept.
 * is_private: only its owner may read it. Errors: HY3_EIO, a full disk among them. The caller owns
 * *out. */
hy3_status hy3_state_layout_create(const char *path, bool is_private, struct hy3_state_index *index,
                                   struct hy3_state_layout **out);
void hy3_state_layout_free(struct hy3_state_layout *layout);

/* Local. Writes the mark that the file is complete and the seal, and flushes them. */
hy3_status hy3_state_layout_complete(const struct hy3_state_layout *layout);
