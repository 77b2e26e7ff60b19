/* SPDX-License-Identifier: Apache-2.0 */
/* parts.h - what a run that is ended before its token file stands has tokenized, for the next one.
 *
 * Every rank appends each finished piece, as a sealed record, to a file NAME.parts.* of its own in
 * the cache directory. A later run takes those pieces over whose record is whole and of the same
 * identity (sources and all that changes tokens), whichever rank of whichever number of ranks wrote
 * it. A record that was cut off, or changed, is as if it were not there. The lock of the token file
 * is held by whoever opens, keeps or removes parts. */
#pragma once

#include "data/sources.h"

struct hy3_parts; /* opaque */

/* Collective on `comm`. Removes files of another identity. The caller owns *out
 * (hy3_parts_close). */
hy3_status hy3_parts_open(MPI_Comm comm, const char *directory, const char *name, bool is_private,
                          uint64_t identity, int64_t pieces, struct hy3_parts **out);
void hy3_parts_close(struct hy3_parts *parts);

/* Bytes of the record of a piece; 0: there is none. */
int64_t hy3_parts_size(const struct hy3_parts *parts, int64_t piece);

/* Local. The bytes that were kept for a piece, borrowed until the next call; NULL where they are
 * damaged. */
hy3_status hy3_parts_load(struct hy3_parts *parts, int64_t piece, const char **out);

/* Local. Adds bytes to the record under way; seals it as that of a piece. Errors: HY3_EIO. */
hy3_status hy3_parts_add(struct hy3_parts *parts, const void *data, size_t size);
hy3_status hy3_parts_keep(struct hy3_parts *parts, int64_t piece);

/* Local. Removes all parts of the name: the token file stands. */
void hy3_parts_remove(const char *directory, const char *name);
