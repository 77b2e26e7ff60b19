/* SPDX-License-Identifier: Apache-2.0 */
/* probe.c - copies of a pass's arrays on the host, in fp32. */
#include "engine/probe.h"

#include "base/memory.h"

/* Copies n elements to a probe's array; nothing if the probe does not want them. */
static hy3_status look(const struct hy3_backend *backend, struct hy3_stream *stream,
                       const void *data, hy3_dtype dtype, int64_t n, float *to)
{
    hy3_status status = HY3_OK;
    char *raw = NULL;

    if (!to)
        return HY3_OK;
    HY3_TRY_DONE(hy3_alloc(&raw, (size_t)n, hy3_dtype_size(dtype)));
    HY3_TRY_DONE(backend->device.copy(stream, raw, data, (size_t)n * hy3_dtype_size(dtype)));
    HY3_TRY_DONE(backend->device.synchronize(stream));
    hy3_convert(raw, dtype, to, HY3_FP32, (size_t)n);
done:
    hy3_free(raw);
    return status;
}

static hy3_status look_in(const struct hy3_layer *l, const void *data, hy3_dtype dtype,
                          int64_t width, float *const *layers)
{
    return look(l->backend, l->stream, data, dtype, l->tokens.T * width,
                layers ? layers[l->index] : NULL);
}

hy3_status hy3_probe_embedding(const struct hy3_probe *probe, const struct hy3_backend *backend,
                               struct hy3_stream *stream, const struct hy3_embedding *e)
{
    return probe ? look(backend, stream, e->y, e->dtype, e->T * e->H, probe->embed) : HY3_OK;
}

hy3_status hy3_probe_layer(const struct hy3_probe *probe, const struct hy3_layer *l)
{
    const struct hy3_layer_acts *a = l->acts;
    int64_t H = l->shape->hidden, k = l->shape->top_k;

    if (!probe)
        return HY3_OK;
    HY3_TRY(look_in(l, a->mid, l->dtype, H, probe->mid));
    HY3_TRY(look_in(l, a->out, l->dtype, H, probe->out));
    if (!hy3_shape_is_moe(l->shape, l->index))
        return HY3_OK;
    HY3_TRY(look_in(l, a->logits, HY3_FP32, l->shape->experts, probe->router_logits));
    HY3_TRY(look_in(l, a->weights, HY3_FP32, k, probe->weights));
    if (probe->chosen)
        HY3_TRY(l->backend->device.copy(l->stream, probe->chosen[l->index], a->ids,
                                        (size_t)(l->tokens.T * k) * sizeof(int32_t)));
    return l->backend->device.synchronize(l->stream);
}

hy3_status hy3_probe_head(const struct hy3_probe *probe, const struct hy3_head *h)
{
    const struct hy3_head_buffers *b = &h->buffers;
    int64_t H = h->shape->hidden, V = h->shape->vocab;

    if (!probe)
        return HY3_OK;
    HY3_TRY(look(h->backend, h->stream, b->n, h->dtype, h->T * H, probe->final_norm));
    for (int64_t at = 0; at < h->T && probe->logits; at += b->chunk) {
        int64_t count = h->T - at < b->chunk ? h->T - at : b->chunk;

        HY3_TRY(hy3_head_logits(h, b->n, at, count));
        HY3_TRY(
            look(h->backend, h->stream, b->logits, HY3_FP32, count * V, probe->logits + at * V));
    }
    return HY3_OK;
}
