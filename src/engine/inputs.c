/* SPDX-License-Identifier: Apache-2.0 */
/* inputs.c - arrays filled on the host and copied. */
#include "engine/inputs.h"

#include "base/random.h"

#include <math.h>

hy3_status hy3_inputs_open(const struct hy3_device *device, int64_t max_tokens, bool with_keys,
                           bool with_noise, struct hy3_inputs *out)
{
    size_t T = (size_t)max_tokens;

    HY3_TRY(hy3_device_host_array(device, T, sizeof(int32_t), &out->ids));
    HY3_TRY(hy3_device_host_array(device, T, sizeof(int32_t), &out->positions));
    HY3_TRY(hy3_device_host_array(device, T, sizeof(int32_t), &out->label_token));
    HY3_TRY(hy3_device_host_array(device, T, sizeof(int32_t), &out->label_position));
    HY3_TRY(hy3_device_host_array(device, T, sizeof(int32_t), &out->targets));
    HY3_TRY(hy3_device_host_array(device, T, sizeof(float), &out->weights));
    if (with_keys || with_noise)
        HY3_TRY(hy3_device_host_array(device, T, sizeof(uint64_t), &out->token_keys));
    return with_noise ? hy3_device_host_array(device, T, sizeof(float), &out->noise_scale) : HY3_OK;
}

void hy3_inputs_close(struct hy3_inputs *inputs, const struct hy3_device *device)
{
    device->free_host(inputs->ids);
    device->free_host(inputs->positions);
    device->free_host(inputs->label_token);
    device->free_host(inputs->label_position);
    device->free_host(inputs->targets);
    device->free_host(inputs->weights);
    device->free_host(inputs->token_keys);
    device->free_host(inputs->noise_scale);
}

hy3_status hy3_inputs_upload(struct hy3_inputs *in, const struct hy3_backend *backend,
                             struct hy3_stream *stream, const struct hy3_batch *batch,
                             const struct hy3_stream_buffers *buffers)
{
    const struct hy3_device *device = &backend->device;
    size_t bytes = (size_t)batch->T * sizeof(int32_t);

    in->labels = 0;
    for (int64_t t = 0; t < batch->T; t++) {
        in->label_position[t] = batch->targets[t] < 0 ? -1 : (int32_t)in->labels;
        if (batch->targets[t] < 0)
            continue;
        in->targets[in->labels] = batch->targets[t];
        in->weights[in->labels] = batch->is_weighted ? batch->weights[t] : 1;
        in->label_token[in->labels++] = (int32_t)t;
    }
    memcpy(in->ids, batch->ids, bytes);
    memcpy(in->positions, batch->positions, bytes);
    HY3_TRY(device->copy(stream, buffers->ids, in->ids, bytes));
    HY3_TRY(device->copy(stream, buffers->positions, in->positions, bytes));
    HY3_TRY(device->copy(stream, buffers->label_position, in->label_position, bytes));
    bytes = (size_t)in->labels * sizeof(int32_t);
    HY3_TRY(device->copy(stream, buffers->label_token, in->label_token, bytes));
    HY3_TRY(device->copy(stream, buffers->targets, in->targets, bytes));
    return batch->is_weighted ? device->copy(stream, buffers->weights, in->weights, bytes) : HY3_OK;
}

hy3_status hy3_inputs_upload_keys(struct hy3_inputs *in, const struct hy3_backend *backend,
                                  struct hy3_stream *stream, const struct hy3_batch *batch,
                                  uint64_t seed, const struct hy3_stream_buffers *buffers)
{
    for (int64_t s = 0; s < batch->S; s++) {
        uint32_t word[4];
        uint64_t key;

        hy3_random(seed, HY3_RANDOM_DROPOUT, (uint64_t)batch->step, (uint64_t)batch->samples[s],
                   word);
        key = (uint64_t)word[0] << 32 | word[1];
        for (int64_t t = batch->starts[s]; t < batch->starts[s + 1]; t++)
            in->token_keys[t] = key + (uint64_t)batch->positions[t];
    }
    return backend->device.copy(stream, buffers->token_keys, in->token_keys,
                                (size_t)batch->T * sizeof *in->token_keys);
}

hy3_status hy3_inputs_upload_noise(struct hy3_inputs *in, const struct hy3_backend *backend,
                                   struct hy3_stream *stream, const struct hy3_batch *batch,
                                   double alpha, int64_t hidden,
                                   const struct hy3_stream_buffers *buffers)
{
    for (int64_t s = 0; s < batch->S; s++) {
        int64_t length =
            batch->cut.lengths ? batch->cut.lengths[s] : batch->starts[s + 1] - batch->starts[s];
        double elements = (double)length * (double)hidden;

        for (int64_t t = batch->starts[s]; t < batch->starts[s + 1]; t++)
            in->noise_scale[t] = (float)(alpha / sqrt(elements));
    }
    return backend->device.copy(stream, buffers->noise_scale, in->noise_scale,
                                (size_t)batch->T * sizeof *in->noise_scale);
}
