/* SPDX-License-Identifier: Apache-2.0 */
/* head_use.h - the end of a forward pass: gathers the head, sums the losses of a micro-batch. */
#pragma once

#include "engine/inputs.h"
#include "engine/probe.h"
#include "parallel/store.h"

struct hy3_pass_result {
    double loss_sum; /* over tokens with a label, each times its weight */
    double weight;   /* of the labels, in all; their number where all weights are 1 */
    int64_t labels;
    int64_t bad_sample; /* dataset index of the first sample with a non-finite loss; -1: none */
    int bad_layer; /* first layer whose output is not finite, -1: the embedding, layers: the head */
    bool is_earlier; /* or one before it, whose output has left the device (engine/spill.h) */
};

/* The arguments of one use of the head, over one micro-batch. */
struct hy3_head_use {
    struct hy3_store *store;
    const struct hy3_batch *batch;
    const struct hy3_inputs *inputs;
    const struct hy3_stream_buffers *stream;
    float *host_loss; /* HOST [T] */
    int first;        /* of stream->x that is still there */
    const struct hy3_probe *probe;
    struct hy3_head head; /* backend, stream, smoothing and buffers are set */
};

/* Collective on the store's layout. Final norm, head and loss; in training leaves the gradient of
 * the last layer's output in stream->d. */
hy3_status hy3_head_use_run(struct hy3_head_use *use, bool training,
                            struct hy3_pass_result *result);
