/* SPDX-License-Identifier: Apache-2.0 */
/* seen.h - which tensors of the parameter table have been found in a directory, piece by piece: for
 * loading and for checking. */
#pragma once

#include "ckpt/hf/names.h"

struct hy3_seen {
    const struct hy3_params *params;
    int count;              /* parameters [0, count) are tracked */
    unsigned char **pieces; /* [count][inner pieces] */
};

/* Local. `params` is kept until hy3_seen_free, which must be called after an error too.
 * Errors: HY3_ENOMEM. */
hy3_status hy3_seen_create(const struct hy3_params *params, int count, struct hy3_seen *seen);
void hy3_seen_free(struct hy3_seen *seen);

/* Marks the pieces that a tensor at `place` has; returns whether one was marked already. */
bool hy3_seen_mark(struct hy3_seen *seen, const struct hy3_place *place);

/* Calls `tell` with the name, in this layout, of every tensor that is missing; of a fused tensor
 * that is there in part, with the inner names of the missing parts. */
void hy3_seen_missing(const struct hy3_seen *seen, enum hy3_names names,
                      void (*tell)(void *context, const char *name), void *context);
