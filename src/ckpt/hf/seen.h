/* SPDX-License-Identifier: Apache-2.0 */
/* seen.h - which tensors of the parameter table a directory has brought, piece by piece: for
 * loading and for checking. */
#ifndef HY3_CKPT_HF_SEEN_H
#define HY3_CKPT_HF_SEEN_H

#include "ckpt/hf/names.h"

struct hy3_seen {
    const struct hy3_params *params;
    int count;              /* the first so many parameters count */
    unsigned char **pieces; /* [count][inner pieces] */
};

/* Local. `params` is kept until hy3_seen_free, which is fine also after an error. Errors:
 * HY3_ENOMEM. */
hy3_status hy3_seen_create(const struct hy3_params *params, int count, struct hy3_seen *seen);
void hy3_seen_free(struct hy3_seen *seen);

/* Marks the pieces that a tensor at `place` brings; whether one of them was there already. */
bool hy3_seen_mark(struct hy3_seen *seen, const struct hy3_place *place);

/* Calls tell for every tensor that nothing has brought, by its name in the layout; a fused one of
 * which a part came is told by its inner parts. */
void hy3_seen_missing(const struct hy3_seen *seen, enum hy3_names names,
                      void (*tell)(void *context, const char *name), void *context);

#endif
