/* SPDX-License-Identifier: Apache-2.0 */
/* mtp.h - the tensors of multi-token-prediction layers, which no program runs and every file
 * keeps. */
#ifndef HY3_CKPT_HF_MTP_H
#define HY3_CKPT_HF_MTP_H

#include "model/params.h"

/* Local. The table of a model whose MTP layers are ordinary layers, with what they have besides
 * (eh_proj, enorm, hnorm, final_layernorm; kind HY3_PARAM_KIND_COUNT) behind all others. The caller
 * owns *out (hy3_params_free). */
hy3_status hy3_mtp_params(const struct hy3_shape *shape, struct hy3_params **out);

#endif
