/* SPDX-License-Identifier: Apache-2.0 */
/* probe.h - arrays of a pass that a test or a diagnosis reads. */
#pragma once

#include "model/head.h"
#include "model/layer.h"

/* HOST arrays filled by the next pass, each may be NULL. */
struct hy3_probe {
    float *logits;                  /* [T,V], every token */
    float *token_loss;              /* [T], 0 where there is no label */
    float *embed, *final_norm;      /* [T,H] */
    float *const *mid, *const *out; /* [layers] of [T,H]: after attention, after the layer */
    float *const *router_logits;    /* [layers] of [T,E]; entries of dense layers are ignored */
    int32_t *const *chosen;         /* [layers] of [T,k] */
    float *const *weights;          /* [layers] of [T,k] */
};

/* Local. Of the embedding, of a layer after its forward, of the head after the final norm: logits
 * of every token. A probe that is NULL does nothing. */
hy3_status hy3_probe_embedding(const struct hy3_probe *probe, const struct hy3_backend *backend,
                               struct hy3_stream *stream, const struct hy3_embedding *embedding);
hy3_status hy3_probe_layer(const struct hy3_probe *probe, const struct hy3_layer *layer);
hy3_status hy3_probe_head(const struct hy3_probe *probe, const struct hy3_head *head);
