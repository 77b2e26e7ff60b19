/* SPDX-License-Identifier: Apache-2.0 */
/* linear.h - the product of rows with a layer's matrix, its adapter included. Rows are the tokens,
 * or those of the experts. */
#pragma once

#include "model/layer.h"

/* y (= or +=) x W^T and what an adapter adds; x [rows,in], y [rows,out]. */
hy3_status hy3_linear_forward(const struct hy3_layer *layer, enum hy3_param_kind kind,
                              const void *x, bool accumulate, void *y);

/* dW += dy^T x unless frozen; dx (= or +=) dy W; and the gradients of an adapter. */
hy3_status hy3_linear_backward(const struct hy3_layer *layer, enum hy3_param_kind kind,
                               const void *x, const void *dy, bool accumulate, void *dx);
