/* SPDX-License-Identifier: Apache-2.0 */
/* moment_copy.h - a copy of a moment in host memory, in the bytes of its format: what a checkpoint
 * is written from while training goes on.
 *
 * Numbers that a moment of 8 bits gave are encoded into the same codes again (backend/moments.h,
 * 1), if all of their block is there; the few of an incomplete block are kept in fp32. */
#pragma once

#include "backend/kernels.h"
#include "base/span.h"

struct hy3_moment_copy {
    enum hy3_moment_format format;
    bool is_first;          /* moments */
    struct hy3_span span;   /* of the tensor */
    struct hy3_span blocks; /* of it: what lies in complete blocks of 8 bits */
    void *numbers;          /* [span.count] in fp32 or bf16, or [blocks.count] codes */
    float *scales;          /* [blocks.count / HY3_MOMENT_BLOCK] */
    float *edges;           /* [span.count - blocks.count] before and behind the blocks */
};

/* Bytes of a copy. */
size_t hy3_moment_copy_bytes(enum hy3_moment_format format, struct hy3_span span);

/* Local. The caller releases it (hy3_moment_copy_close), also after an error. Errors:
 * HY3_ENOMEM. */
hy3_status hy3_moment_copy_open(enum hy3_moment_format format, bool is_first, struct hy3_span span,
                                struct hy3_moment_copy *copy);
void hy3_moment_copy_close(struct hy3_moment_copy *copy);

/* Elements that put takes at a time, from one of the copy on. */
struct hy3_span hy3_moment_copy_piece(const struct hy3_moment_copy *copy, int64_t first);

enum { HY3_MOMENT_COPY_PIECE = 1 << 20 }; /* at most */

void hy3_moment_copy_put(struct hy3_moment_copy *copy, struct hy3_span piece, const float *values);
void hy3_moment_copy_get(const struct hy3_moment_copy *copy, struct hy3_span span, float *values);
