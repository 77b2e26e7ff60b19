/* SPDX-License-Identifier: Apache-2.0 */
/* lora.h - the low-rank products of an adapter beside a layer's matrices: forward and backward.
 *
 *     y = W x + scale B A dropout(x),   scale = alpha / rank, or alpha / sqrt(rank)
 * Hu et al. 2021; layout and scaling as in PEFT (tuners/lora/layer.py). Nothing is kept from the
 * forward pass: A x is calculated again for the gradients, which costs rank / out of the layer's
 * own product and no memory. */
#pragma once

#include "model/layer.h"

/* Local. Adds the matrices of a name in lora_target: q_proj … down_proj (of the dense and the
 * shared MLP), experts (the routed ones), all. Errors: HY3_EUSAGE with the names that exist. */
hy3_status hy3_lora_target(const char *name, struct hy3_lora *lora);

/* Local. Adds a module whose tensor is trained whole: embed_tokens, lm_head. Errors: HY3_EUSAGE
 * with these names. */
hy3_status hy3_lora_save(const char *name, struct hy3_lora *lora);

/* The kind of such a module, whose name may stand behind others ("model.embed_tokens"); -1: it is
 * none. */
int hy3_lora_saved_kind(const char *name);

/* The module's name of such a kind, "" of others. */
const char *hy3_lora_saved_name(enum hy3_param_kind kind);

/* Memory of one product at a time. Sized for every target of the model. */
void hy3_lora_buffers_take(const struct hy3_shape *shape, const struct hy3_lora *lora,
                           const struct hy3_layer_size *size, bool backward,
                           struct hy3_arena *arena, struct hy3_lora_buffers *out);

/* y += scale B A dropout(x) if the layer has an adapter for `kind`; x [rows,in], y [rows,out]. Rows
 * are the tokens, or those of the experts. Experts have no dropout, as in PEFT. */
hy3_status hy3_lora_forward(const struct hy3_layer *layer, enum hy3_param_kind kind, const void *x,
                            void *y);

/* dA, dB += and dx +=, from x and dy as above. */
hy3_status hy3_lora_backward(const struct hy3_layer *layer, enum hy3_param_kind kind, const void *x,
                             const void *dy, void *dx);
