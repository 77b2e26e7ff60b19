/* SPDX-License-Identifier: Apache-2.0 */
/* bind.h - weights, gradients and adapter in the store as arguments of model/. */
#pragma once

#include "model/head.h"
#include "model/layer.h"
#include "parallel/store.h"

/* Local. Device addresses of all tensors of layer `index`; its units must be gathered. */
void hy3_bind_layer(const struct hy3_store *store, int index, struct hy3_layer_params *out);

/* Local. Shape, dtype, weights and gradients of the head; its unit must be gathered. */
void hy3_bind_head(const struct hy3_store *store, struct hy3_head *out);

/* The adapter of the store's model, NULL if it has none. */
const struct hy3_lora *hy3_bind_lora(const struct hy3_store *store);
