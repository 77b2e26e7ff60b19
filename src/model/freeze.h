/* SPDX-License-Identifier: Apache-2.0 */
/* freeze.h - the names of finetuning_type freeze: which kinds of tensors they select.
 *
 * They are those of LLaMA-Factory (model/adapter.py, freeze tuning): of a tensor in a layer the
 * first name behind the layer's number (self_attn, mlp, …), of one outside the layers its module
 * (embed_tokens, norm, lm_head). */
#pragma once

#include "model/params.h"

/* Local. Adds the kinds of a module of the chosen layers; "all": every one of them. Errors:
 * HY3_EUSAGE with the names that exist. */
hy3_status hy3_freeze_module(const char *name, struct hy3_selection *selection);

/* Local. Adds the kinds of a module outside the layers. As there, every tensor whose name contains
 * it is meant: "norm" selects the norms of all layers too. Errors as above. */
hy3_status hy3_freeze_extra(const char *name, struct hy3_selection *selection);
