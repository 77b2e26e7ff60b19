/* SPDX-License-Identifier: Apache-2.0 */
/* workspace.c - the layout of a pass's memory, and its size. */
#include "engine/workspace.h"

#include "base/memory.h"
#include "model/lora.h"

/* Rows of logits held at a time: 128 MiB of them, but enough rows to feed a matrix product. */
static int64_t loss_chunk(const struct hy3_workspace_shape *shape)
{
    int64_t rows = ((int64_t)128 << 20) / (shape->model->vocab * (int64_t)sizeof(float));

    rows = rows < 128 ? 128 : rows;
    return rows < shape->size.T ? rows : shape->size.T;
}

void hy3_stream_buffers_take(const struct hy3_workspace_shape *shape, struct hy3_arena *arena,
                             struct hy3_stream_buffers *out)
{
    const struct hy3_shape *s = shape->model;
    size_t size = hy3_dtype_size(shape->size.dtype);
    int64_t T = shape->size.T;

    out->ids = hy3_arena_take(arena, T, sizeof(int32_t));
    out->positions = hy3_arena_take(arena, T, sizeof(int32_t));
    out->label_token = hy3_arena_take(arena, T, sizeof(int32_t));
    out->label_position = hy3_arena_take(arena, T, sizeof(int32_t));
    out->targets = hy3_arena_take(arena, T, sizeof(int32_t));
    for (int i = 0; i <= s->layers; i++)
        out->x[i] = hy3_arena_take(arena, T * s->hidden, size);
    for (int i = 0; i < s->layers; i++)
        out->chosen[i] =
            hy3_shape_is_moe(s, i) ? hy3_arena_take(arena, T * s->top_k, sizeof(int32_t)) : NULL;
    out->d = shape->backward ? hy3_arena_take(arena, T * s->hidden, size) : NULL;
    if (shape->size.C > 0) {
        out->arrival = hy3_arena_take(arena, shape->size.C * s->hidden, size);
        out->expert_out = hy3_arena_take(arena, shape->size.C * s->hidden, size);
        out->expert_token = hy3_arena_take(arena, shape->size.C, sizeof(int32_t));
        out->expert_position = hy3_arena_take(arena, shape->size.C, sizeof(int32_t));
    }
    if (!shape->lora)
        return;
    hy3_lora_buffers_take(s, shape->lora, &shape->size, shape->backward, arena, &out->lora);
    if (shape->backward && shape->lora->dropout > 0)
        out->dropout_keys = hy3_arena_take(arena, T, sizeof(uint64_t));
}

void hy3_loss_buffers_take(const struct hy3_workspace_shape *shape, struct hy3_arena *arena,
                           struct hy3_loss_buffers *out)
{
    const struct hy3_shape *s = shape->model;
    size_t size = hy3_dtype_size(shape->size.dtype);
    int64_t T = shape->size.T;

    *out = (struct hy3_loss_buffers){.chunk = loss_chunk(shape)};
    out->n = hy3_arena_take(arena, T * s->hidden, size);
    out->r = hy3_arena_take(arena, T, sizeof(float));
    out->rows = hy3_arena_take(arena, T * s->hidden, size);
    out->loss = hy3_arena_take(arena, T, sizeof(float));
    out->lse = hy3_arena_take(arena, T, sizeof(float));
    out->logits = hy3_arena_take(arena, out->chunk * s->vocab, sizeof(float));
    out->dlogits = out->logits;
    if (!shape->backward)
        return;
    out->drows = hy3_arena_take(arena, T * s->hidden, size);
    out->dn = hy3_arena_take(arena, T * s->hidden, size);
    if (shape->size.dtype != HY3_FP32)
        out->dlogits = hy3_arena_take(arena, out->chunk * s->vocab, size);
}

hy3_status hy3_workspace_measure(const struct hy3_workspace_shape *shape, size_t *bytes)
{
    hy3_status status = HY3_OK;
    const struct hy3_shape *s = shape->model;
    struct hy3_arena arena = {0};
    struct hy3_stream_buffers stream = {0};
    struct hy3_loss_buffers loss;
    struct hy3_layer_acts acts = {0};
    struct hy3_layer_scratch scratch = {0};
    size_t mark;

    HY3_TRY_DONE(hy3_alloc(&stream.x, (size_t)s->layers + 1, sizeof *stream.x));
    HY3_TRY_DONE(hy3_alloc(&stream.chosen, (size_t)s->layers + 1, sizeof *stream.chosen));
    hy3_stream_buffers_take(shape, &arena, &stream);
    if (shape->backward && !shape->checkpointing)
        for (int i = 0; i < s->layers; i++)
            hy3_layer_acts_take(s, i, &shape->size, &arena, &acts);
    mark = hy3_arena_mark(&arena);
    hy3_loss_buffers_take(shape, &arena, &loss);
    hy3_arena_reset(&arena, mark);
    if (shape->backward)
        hy3_layer_scratch_take(s, &shape->size, &arena, &scratch);
    mark = hy3_arena_mark(&arena);
    for (int i = 0; i < s->layers && (shape->checkpointing || !shape->backward); i++) {
        hy3_layer_acts_take(s, i, &shape->size, &arena, &acts);
        hy3_arena_reset(&arena, mark);
    }
    *bytes = arena.peak;
done:
    hy3_free(stream.x);
    hy3_free(stream.chosen);
    return status;
}
