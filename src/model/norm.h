/* SPDX-License-Identifier: Apache-2.0 */
/* norm.h - the RMS norms of a layer's residual. */
#pragma once

#include "model/layer.h"

/* y = norm of x with the weight of `kind`; x, y [T,H], r [T]. */
hy3_status hy3_norm_forward(const struct hy3_layer *layer, enum hy3_param_kind kind, const void *x,
                            void *y, float *r);

/* dx += from dy; dw += unless frozen. x, y and r as in the forward. */
hy3_status hy3_norm_backward(const struct hy3_layer *layer, enum hy3_param_kind kind, const void *x,
                             void *y, float *r, const void *dy, void *dx);
