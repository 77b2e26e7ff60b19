/* SPDX-License-Identifier: Apache-2.0 */
/* shape.h - the shape of a Hy3 model, read from config.json and checked.
 *
 * Key names differ between publications; all are accepted, a contradiction is an error. */
#pragma once

#include "base/error.h"

#include <jansson.h>

struct hy3_shape {
    int64_t layers;       /* num_hidden_layers */
    int64_t dense_layers; /* first_k_dense_replace: layers 0 .. dense_layers-1 have a dense MLP */
    int64_t mtp_layers;   /* num_nextn_predict_layers; carried through, never run */
    int64_t hidden;       /* H */
    int64_t intermediate; /* I of dense layers */
    int64_t heads;        /* Q */
    int64_t kv_heads;     /* K */
    int64_t head_dim;     /* D, even */
    int64_t vocab;        /* V */
    int64_t experts;      /* E; 0: no layer has experts */
    int64_t top_k;        /* k */
    int64_t shared_experts;
    int64_t expert_intermediate; /* I of one expert; the shared MLP has shared_experts times that */
    int64_t max_positions;       /* max_position_embeddings */
    double router_scaling;       /* router_scaling_factor */
    double rms_eps;
    double rope_theta;
    double initializer_range;
};

/* Local. Reads a parsed config.json. where: its name for messages. Errors: HY3_EFORMAT naming the
 * key: missing, wrong type, out of range, contradiction between two names, or a feature of another
 * model family. */
hy3_status hy3_shape_read(const json_t *config, const char *where, struct hy3_shape *out);

/* Local. The same from a file. */
hy3_status hy3_shape_open(const char *path, struct hy3_shape *out);

/* Multiply-adds of the forward pass over one token, without those with other tokens; the embedding
 * is copied. */
int64_t hy3_shape_token_cost(const struct hy3_shape *shape);

/* Tokens of a sample at which attention among them costs as much as all else: a sample of n tokens
 * is n token costs (1 + n / this). */
int64_t hy3_shape_attention_length(const struct hy3_shape *shape);
