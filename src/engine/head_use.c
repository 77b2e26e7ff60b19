/* SPDX-License-Identifier: Apache-2.0 */
/* head_use.c - gathers the head's unit, runs model/head.h, and adds the losses up on the host. */
#include "engine/head_use.h"

#include "comm/heartbeat.h"
#include "engine/bind.h"

#include <math.h>

/* The first layer whose output is not finite. */
static hy3_status find_bad_layer(const struct hy3_head_use *u, struct hy3_pass_result *result)
{
    const struct hy3_head *h = &u->head;
    int64_t i;

    for (i = u->first; i <= h->shape->layers; i++) {
        double *sum = (double *)(void *)h->buffers.logits, value = 0;

        HY3_TRY(h->backend->kernels.square_sum(
            h->stream, &(struct hy3_square_sum){.n = h->T * h->shape->hidden,
                                                .dtype = h->dtype,
                                                .x = u->stream->x[i],
                                                .sum = sum}));
        HY3_TRY(h->backend->device.copy(h->stream, &value, sum, sizeof value));
        HY3_TRY(h->backend->device.synchronize(h->stream));
        if (!isfinite(value))
            break;
    }
    result->bad_layer = (int)i - 1;
    result->is_earlier = i > 0 && i == u->first;
    return HY3_OK;
}

/* Sums the token losses in their order, and looks for one that is not finite. */
static hy3_status collect_loss(const struct hy3_head_use *u, struct hy3_pass_result *result)
{
    const struct hy3_head *h = &u->head;
    float *token_loss = u->probe ? u->probe->token_loss : NULL;
    int64_t sample = 0;

    *result = (struct hy3_pass_result){.labels = h->labels, .bad_sample = -1};
    HY3_TRY(h->backend->device.copy(h->stream, u->host_loss, h->buffers.loss,
                                    (size_t)h->labels * sizeof(float)));
    HY3_TRY(h->backend->device.synchronize(h->stream));
    if (token_loss)
        memset(token_loss, 0, (size_t)h->T * sizeof(float));
    for (int64_t i = 0; i < h->labels; i++) {
        int32_t token = u->inputs->label_token[i];

        while (token >= u->batch->starts[sample + 1])
            sample++;
        result->loss_sum += (double)u->inputs->weights[i] * u->host_loss[i];
        result->weight += u->inputs->weights[i];
        if (!isfinite(u->host_loss[i]) && result->bad_sample < 0)
            result->bad_sample = u->batch->samples[sample];
        if (token_loss)
            token_loss[token] = u->host_loss[i];
    }
    if (result->bad_sample >= 0)
        HY3_TRY(find_bad_layer(u, result));
    return HY3_OK;
}

hy3_status hy3_head_use_run(struct hy3_head_use *u, bool training, struct hy3_pass_result *result)
{
    struct hy3_head *h = &u->head;
    int unit = hy3_params_head_unit(hy3_store_params(u->store));

    hy3_heartbeat("head and loss", 0, -1);
    HY3_TRY(hy3_store_gather(u->store, h->stream, unit));
    if (training)
        HY3_TRY(hy3_store_open_grads(u->store, h->stream, unit));
    hy3_bind_head(u->store, h);
    h->T = u->batch->T;
    h->labels = u->inputs->labels;
    h->label_token = u->stream->label_token;
    h->label_position = u->stream->label_position;
    h->targets = u->stream->targets;
    h->weights = u->batch->is_weighted ? u->stream->weights : NULL;
    h->x = u->stream->x[h->shape->layers];
    h->d = u->stream->d;
    HY3_TRY(hy3_head_norm(h));
    HY3_TRY(hy3_probe_head(u->probe, h));
    HY3_TRY(hy3_head_loss(h, training));
    HY3_TRY(collect_loss(u, result));
    if (training)
        HY3_TRY(hy3_head_backward(h));
    hy3_store_release(u->store, unit);
    return HY3_OK;
}
