/* SPDX-License-Identifier: Apache-2.0 */
/* inputs.h - a micro-batch on the device: tokens, labels, keys and scale of random numbers.
 *
 * Of ranks that share it each uploads its part: positions, labels and keys are those of the whole
 * samples. */
#pragma once

#include "data/batches.h"
#include "engine/workspace.h"

/* HOST memory, pinned, which must stay until the device has read it; see struct
 * hy3_stream_buffers. */
struct hy3_inputs {
    int32_t *ids, *positions; /* of the tokens */
    int32_t *label_token, *label_position, *targets;
    float *weights;       /* of the labels */
    uint64_t *token_keys; /* NULL: neither dropout nor noise */
    float *noise_scale;   /* NULL: no noise */
    int64_t labels;       /* of the current micro-batch */
};

/* Local. The caller owns *out (hy3_inputs_close), also after an error. Errors: HY3_ENOMEM. */
hy3_status hy3_inputs_open(const struct hy3_device *device, int64_t max_tokens, bool with_keys,
                           bool with_noise, struct hy3_inputs *out);
void hy3_inputs_close(struct hy3_inputs *inputs, const struct hy3_device *device);

/* Local. Copies the batch to the device, and which tokens have a label; their weights, where the
 * batch has some. */
hy3_status hy3_inputs_upload(struct hy3_inputs *inputs, const struct hy3_backend *backend,
                             struct hy3_stream *stream, const struct hy3_batch *batch,
                             const struct hy3_stream_buffers *buffers);

/* Local. A key for every token that depends on the seed, the step, its sample and its place in it:
 * so random numbers do not depend on the ranks. */
hy3_status hy3_inputs_upload_keys(struct hy3_inputs *inputs, const struct hy3_backend *backend,
                                  struct hy3_stream *stream, const struct hy3_batch *batch,
                                  uint64_t seed, const struct hy3_stream_buffers *buffers);

/* Local. Of each token the size of its noise, alpha / sqrt(length of its sample * hidden): NEFTune
 * (Jain et al. 2023; transformers/integrations/neftune.py, which has the length of the padded
 * batch instead). */
hy3_status hy3_inputs_upload_noise(struct hy3_inputs *inputs, const struct hy3_backend *backend,
                                   struct hy3_stream *stream, const struct hy3_batch *batch,
                                   double alpha, int64_t hidden,
                                   const struct hy3_stream_buffers *buffers);
