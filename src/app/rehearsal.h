/* SPDX-License-Identifier: Apache-2.0 */
/* rehearsal.h - all objects of a rank that trains, without data, weights or other ranks: for plans
 * on a backend that only counts, and for measurements. */
#pragma once

#include "app/loaded_model.h"
#include "config/config.h"
#include "data/batches.h"
#include "engine/pass.h"
#include "optim/sharded_optimizer.h"

struct hy3_rehearsal {
    const struct hy3_config *config;
    struct hy3_loaded_model model; /* without base and adapter files */
    struct hy3_sharded_optimizer optimizer;
    struct hy3_pass *pass;
    struct hy3_batch batch; /* the longest micro-batch, of token 0, each one a label */
};

/* Local. Weights are zero. The groups of *layout have no communicator (comm/group.h) and belong to
 * the caller. config and backend are kept until hy3_rehearsal_close, which is to follow also after
 * an error. */
hy3_status hy3_rehearsal_open(const struct hy3_config *config, const struct hy3_shape *shape,
                              const struct hy3_layout *layout, const struct hy3_backend *backend,
                              struct hy3_rehearsal *out);
void hy3_rehearsal_close(struct hy3_rehearsal *rehearsal);
