/* SPDX-License-Identifier: Apache-2.0 */
/* mlp.h - the gated MLP on the tokens: a dense layer's, or the shared expert's. */
#pragma once

#include "model/layer.h"

struct hy3_mlp {
    enum hy3_param_kind gate, up, down;
};

/* y (= or +=) down(silu(gate n2) * up n2). Recomputation ends before the last product: no backward
 * reads y. */
hy3_status hy3_mlp_forward(const struct hy3_layer *layer, const struct hy3_mlp *mlp,
                           bool accumulate, void *y);

/* From dy: d(n2) = or += into dn. Overwrites gate and up with their gradients. */
hy3_status hy3_mlp_backward(const struct hy3_layer *layer, const struct hy3_mlp *mlp,
                            const void *dy, bool accumulate, void *dn);
