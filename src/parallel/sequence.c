/* SPDX-License-Identifier: Apache-2.0 */
/* sequence.c - one gather and one sum a layer; rows are put in order by the kernel that brings
 * tokens to their experts. */
#include "parallel/sequence.h"

#include "base/zigzag.h"

hy3_status hy3_sequence_open(struct hy3_sequence *s, int64_t T)
{
    int64_t parts = hy3_zigzag_most(T, s->group->size) * s->group->size, rows = 2 * (T + parts);

    s->loaded = -1;
    return hy3_device_host_array(&s->backend->device, (size_t)rows, sizeof *s->host_index,
                                 &s->host_index);
}

void hy3_sequence_close(struct hy3_sequence *s)
{
    if (s->backend)
        s->backend->device.free_host(s->host_index);
}

void hy3_sequence_take(struct hy3_sequence *s, int64_t T, struct hy3_arena *arena)
{
    int64_t C = hy3_zigzag_most(T, s->group->size), rows = 2 * C * s->group->size;
    size_t size = hy3_dtype_size(s->dtype);

    s->T = T;
    s->C = C;
    s->to_tokens = hy3_arena_take(arena, 2 * T, sizeof *s->to_tokens);
    s->to_parts = hy3_arena_take(arena, rows, sizeof *s->to_parts);
    s->k = hy3_arena_take(arena, 2 * T * s->width, size);
    s->parts = hy3_arena_take(arena, rows * s->width, s->backward ? sizeof(float) : size);
    if (s->k)
        s->v = (char *)s->k + (size_t)(T * s->width) * size;
    if (!s->backward)
        return;
    s->dk = hy3_arena_take(arena, 2 * T * s->width, sizeof *s->dk);
    if (s->dk)
        s->dv = s->dk + T * s->width;
    s->own = hy3_arena_take(arena, 2 * C * s->width, sizeof *s->own);
}

/* Of rank r the rows of parts: its tokens in order, then those that are none, which have any. */
static void index_rank(const struct hy3_sequence *s, int r, int32_t *to_tokens, int32_t *to_parts)
{
    const int P = s->group->size;
    int64_t at = 2 * s->C * r, i = 0;

    for (int half = 0; half < 2; half++) {
        int chunk = hy3_zigzag_chunk(P, r, half);
        int64_t first = hy3_zigzag_first(s->T, P, chunk);

        for (int64_t n = hy3_zigzag_tokens(s->T, P, chunk), t = first; t < first + n; t++, i++) {
            to_tokens[t] = (int32_t)(at + i);
            to_tokens[s->T + t] = (int32_t)(at + s->C + i);
            to_parts[at + i] = (int32_t)t;
            to_parts[at + s->C + i] = (int32_t)(s->T + t);
        }
    }
    for (; i < s->C; i++)
        to_parts[at + i] = to_parts[at + s->C + i] = 0;
}

hy3_status hy3_sequence_begin(struct hy3_sequence *s, struct hy3_stream *stream)
{
    const struct hy3_device *device = &s->backend->device;
    int32_t *to_tokens = s->host_index, *to_parts = s->host_index + 2 * s->T;

    s->loaded = -1;
    for (int r = 0; r < s->group->size; r++)
        index_rank(s, r, to_tokens, to_parts);
    HY3_TRY(device->copy(stream, s->to_tokens, to_tokens, (size_t)(2 * s->T) * sizeof *to_tokens));
    return device->copy(stream, s->to_parts, to_parts,
                        (size_t)(2 * s->C * s->group->size) * sizeof *to_parts);
}

hy3_status hy3_sequence_gather(struct hy3_sequence *s, struct hy3_stream *stream, int layer,
                               const void *k, const void *v, int64_t count)
{
    const struct hy3_collectives *collectives = &s->backend->collectives;
    size_t row = (size_t)s->width * hy3_dtype_size(s->dtype), bytes = (size_t)count * row;
    char *own = (char *)s->parts + (size_t)(2 * s->C * s->group->rank) * row;
    struct hy3_transfer transfer = {0};

    if (s->loaded == layer)
        return HY3_OK;
    HY3_TRY(s->backend->device.copy(stream, own, k, bytes));
    HY3_TRY(s->backend->device.copy(stream, own + (size_t)s->C * row, v, bytes));
    HY3_TRY(collectives->all_gather(stream, s->group, s->parts, 2 * s->C * s->width, s->dtype,
                                    &transfer));
    HY3_TRY(collectives->finish(stream, &transfer, "gathering keys and values"));
    s->loaded = layer;
    return s->backend->kernels.permute_forward(stream,
                                               &(struct hy3_permute){.T = 2 * s->C * s->group->size,
                                                                     .R = 2 * s->T,
                                                                     .H = s->width,
                                                                     .k = 1,
                                                                     .dtype = s->dtype,
                                                                     .token = s->to_tokens,
                                                                     .x = s->parts,
                                                                     .y = s->k});
}

hy3_status hy3_sequence_open_grads(struct hy3_sequence *s, struct hy3_stream *stream)
{
    return s->backend->device.zero(stream, s->dk, (size_t)(2 * s->T * s->width) * sizeof *s->dk);
}

/* Rounds the first `count` rows of what was summed. */
static hy3_status put(const struct hy3_sequence *s, struct hy3_stream *stream, const float *sums,
                      void *to, int64_t count)
{
    if (s->dtype == HY3_FP32)
        return s->backend->device.copy(stream, to, sums, (size_t)(count * s->width) * sizeof *sums);
    return s->backend->kernels.cast(
        stream,
        &(struct hy3_cast){
            .n = count * s->width, .x_dtype = HY3_FP32, .y_dtype = s->dtype, .x = sums, .y = to});
}

hy3_status hy3_sequence_reduce(struct hy3_sequence *s, struct hy3_stream *stream, void *dk,
                               void *dv, int64_t count)
{
    const struct hy3_collectives *collectives = &s->backend->collectives;
    struct hy3_transfer transfer = {0};

    HY3_TRY(s->backend->kernels.permute_forward(
        stream, &(struct hy3_permute){.T = 2 * s->T,
                                      .R = s->T > 0 ? 2 * s->C * s->group->size : 0,
                                      .H = s->width,
                                      .k = 1,
                                      .dtype = HY3_FP32,
                                      .token = s->to_parts,
                                      .x = s->dk,
                                      .y = s->parts}));
    HY3_TRY(collectives->reduce_scatter(stream, s->group, s->parts, s->own, 2 * s->C * s->width,
                                        HY3_FP32, &transfer));
    HY3_TRY(collectives->finish(stream, &transfer, "summing gradients of keys and values"));
    HY3_TRY(put(s, stream, s->own, dk, count));
    return put(s, stream, s->own + s->C * s->width, dv, count);
}
