/* SPDX-License-Identifier: Apache-2.0 */
/* workspace.c - the layout of a pass's memory, and its size. */
#include "engine/workspace.h"

#include "base/memory.h"
#include "engine/spill.h"
#include "model/head.h"
#include "model/lora.h"

hy3_status hy3_stream_buffers_open(int64_t layers, struct hy3_stream_buffers *buffers)
{
    size_t count = (size_t)layers + 1;

    HY3_TRY(hy3_alloc(&buffers->x, count, sizeof *buffers->x));
    HY3_TRY(hy3_alloc(&buffers->o, count, sizeof *buffers->o));
    HY3_TRY(hy3_alloc(&buffers->lse, count, sizeof *buffers->lse));
    return hy3_alloc(&buffers->chosen, count, sizeof *buffers->chosen);
}

void hy3_stream_buffers_close(struct hy3_stream_buffers *buffers)
{
    hy3_free(buffers->x);
    hy3_free(buffers->o);
    hy3_free(buffers->lse);
    hy3_free(buffers->chosen);
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
    out->weights = hy3_arena_take(arena, T, sizeof(float));
    for (int i = 0; i <= s->layers; i++)
        out->x[i] = shape->spill && i >= HY3_SPILL_SLOTS
                        ? out->x[i - HY3_SPILL_SLOTS]
                        : hy3_arena_take(arena, T * s->hidden, size);
    for (int i = 0; i < s->layers && shape->size.keeps_attention; i++) {
        out->o[i] = shape->spill && i >= HY3_SPILL_SLOTS
                        ? out->o[i - HY3_SPILL_SLOTS]
                        : hy3_arena_take(arena, T * s->heads * s->head_dim, size);
        out->lse[i] = hy3_arena_take(arena, T * s->heads, sizeof(float));
    }
    for (int i = 0; i < s->layers; i++)
        out->chosen[i] =
            hy3_shape_is_moe(s, i) ? hy3_arena_take(arena, T * s->top_k, sizeof(int32_t)) : NULL;
    out->d = shape->backward ? hy3_arena_take(arena, T * s->hidden, size) : NULL;
    if (shape->sequence)
        hy3_sequence_take(shape->sequence, shape->whole, arena);
    if (shape->size.C > 0) {
        hy3_exchange_take(shape->exchange, T, shape->backward, arena, &out->exchange);
        out->expert_out = hy3_arena_take(arena, shape->size.C * s->hidden, size);
    }
    if (shape->lora)
        hy3_lora_buffers_take(s, shape->lora, &shape->size, shape->backward, arena, &out->lora);
    if (shape->backward && (shape->noise || (shape->lora && shape->lora->dropout > 0)))
        out->token_keys = hy3_arena_take(arena, T, sizeof(uint64_t));
    if (shape->backward && shape->noise)
        out->noise_scale = hy3_arena_take(arena, T, sizeof(float));
}

hy3_status hy3_workspace_measure(const struct hy3_workspace_shape *shape, size_t *bytes)
{
    hy3_status status = HY3_OK;
    const struct hy3_shape *s = shape->model;
    struct hy3_arena arena = {0};
    struct hy3_stream_buffers stream = {0};
    struct hy3_head_buffers head;
    struct hy3_layer_acts acts = {0};
    struct hy3_layer_scratch scratch = {0};
    const bool is_kept = shape->backward && !shape->checkpointing;
    size_t mark;

    HY3_TRY_DONE(hy3_stream_buffers_open(s->layers, &stream));
    hy3_stream_buffers_take(shape, &arena, &stream);
    for (int i = 0; i < s->layers; i++) { /* forward */
        mark = hy3_arena_mark(&arena);
        hy3_acts_take(s, i, &shape->size, &arena, &acts);
        if (is_kept)
            mark = hy3_arena_mark(&arena);
        hy3_rows_out_take(s, i, &shape->size, &arena, &acts);
        hy3_arena_reset(&arena, mark);
    }
    mark = hy3_arena_mark(&arena);
    hy3_head_buffers_take(s, &shape->size, shape->backward, &arena, &head);
    hy3_arena_reset(&arena, mark);
    if (shape->backward)
        hy3_scratch_take(s, &shape->size, &arena, &scratch);
    mark = hy3_arena_mark(&arena);
    for (int i = 0; i < s->layers && shape->backward && !is_kept; i++) { /* recomputation */
        hy3_acts_take(s, i, &shape->size, &arena, &acts);
        hy3_arena_reset(&arena, mark);
    }
    *bytes = arena.peak;
done:
    hy3_stream_buffers_close(&stream);
    return status;
}
