/* SPDX-License-Identifier: Apache-2.0 */
/* head.c - rows with a label are collected, then worked on chunk by chunk. */
#include "model/head.h"

/* Rows of logits held at a time: 128 MiB of them, but enough rows to feed a matrix product. */
static int64_t chunk_rows(const struct hy3_shape *shape, int64_t T)
{
    int64_t rows = ((int64_t)128 << 20) / (shape->vocab * (int64_t)sizeof(float));

    rows = rows < 128 ? 128 : rows;
    return rows < T ? rows : T;
}

void hy3_head_buffers_take(const struct hy3_shape *s, const struct hy3_layer_size *of,
                           bool backward, struct hy3_arena *arena, struct hy3_head_buffers *out)
{
    size_t size = hy3_dtype_size(of->dtype);
    int64_t T = of->T;

    *out = (struct hy3_head_buffers){.chunk = chunk_rows(s, T)};
    out->n = hy3_arena_take(arena, T * s->hidden, size);
    out->r = hy3_arena_take(arena, T, sizeof(float));
    out->rows = hy3_arena_take(arena, T * s->hidden, size);
    out->loss = hy3_arena_take(arena, T, sizeof(float));
    out->lse = hy3_arena_take(arena, T, sizeof(float));
    out->logits = hy3_arena_take(arena, out->chunk * s->vocab, sizeof(float));
    out->dlogits = out->logits;
    if (!backward)
        return;
    out->drows = hy3_arena_take(arena, T * s->hidden, size);
    out->dn = hy3_arena_take(arena, T * s->hidden, size);
    if (of->dtype != HY3_FP32)
        out->dlogits = hy3_arena_take(arena, out->chunk * s->vocab, size);
}

static struct hy3_rmsnorm norm(const struct hy3_head *h)
{
    return (struct hy3_rmsnorm){.T = h->T,
                                .H = h->shape->hidden,
                                .eps = (float)h->shape->rms_eps,
                                .dtype = h->dtype,
                                .x = h->x,
                                .w = h->norm,
                                .y = h->buffers.n,
                                .r = h->buffers.r,
                                .dy = h->buffers.dn,
                                .dx = h->d,
                                .dw = h->norm_grad};
}

static struct hy3_permute label_rows(const struct hy3_head *h)
{
    return (struct hy3_permute){.T = h->T,
                                .R = h->labels,
                                .H = h->shape->hidden,
                                .k = 1,
                                .dtype = h->dtype,
                                .token = h->label_token,
                                .position = h->label_position,
                                .x = h->buffers.n,
                                .y = h->buffers.rows,
                                .dy = h->buffers.drows,
                                .dx = h->buffers.dn};
}

static size_t row_bytes(const struct hy3_head *h, int64_t rows)
{
    return (size_t)(rows * h->shape->hidden) * hy3_dtype_size(h->dtype);
}

hy3_status hy3_head_norm(const struct hy3_head *h)
{
    struct hy3_rmsnorm n = norm(h);

    return h->backend->kernels.rmsnorm_forward(h->stream, &n);
}

hy3_status hy3_head_logits(const struct hy3_head *h, const void *rows, int64_t first, int64_t count)
{
    return h->backend->kernels.gemm(
        h->stream, &(struct hy3_gemm){.form = HY3_NT,
                                      .M = count,
                                      .N = h->shape->vocab,
                                      .K = h->shape->hidden,
                                      .dtype = h->dtype,
                                      .c_dtype = HY3_FP32,
                                      .alpha = 1,
                                      .A = (const char *)rows + row_bytes(h, first),
                                      .B = h->table,
                                      .C = h->buffers.logits});
}

/* From dlogits of a chunk: drows = dlogits W, dW += dlogits^T rows. */
static hy3_status logits_backward(const struct hy3_head *h, int64_t first, int64_t count)
{
    struct hy3_gemm product = {.form = HY3_NN,
                               .M = count,
                               .N = h->shape->hidden,
                               .K = h->shape->vocab,
                               .dtype = h->dtype,
                               .c_dtype = h->dtype,
                               .alpha = 1,
                               .A = h->buffers.dlogits,
                               .B = h->table,
                               .C = (char *)h->buffers.drows + row_bytes(h, first)};

    HY3_TRY(h->backend->kernels.gemm(h->stream, &product));
    if (!h->table_grad)
        return HY3_OK;
    product.form = HY3_TN;
    product.M = h->shape->vocab;
    product.K = count;
    product.c_dtype = HY3_FP32;
    product.accumulate = true;
    product.B = (const char *)h->buffers.rows + row_bytes(h, first);
    product.C = h->table_grad;
    return h->backend->kernels.gemm(h->stream, &product);
}

hy3_status hy3_head_loss(const struct hy3_head *h, bool training)
{
    const struct hy3_head_buffers *b = &h->buffers;
    struct hy3_permute rows = label_rows(h);

    HY3_TRY(h->backend->kernels.permute_forward(h->stream, &rows));
    for (int64_t at = 0; at < h->labels; at += b->chunk) {
        int64_t count = h->labels - at < b->chunk ? h->labels - at : b->chunk;
        struct hy3_loss loss = {.N = count,
                                .V = h->shape->vocab,
                                .logits = b->logits,
                                .targets = h->targets + at,
                                .loss = b->loss + at,
                                .lse = b->lse + at,
                                .scale = 1,
                                .smoothing = h->smoothing,
                                .weights = h->weights ? h->weights + at : NULL,
                                .dtype = h->dtype,
                                .dlogits = b->dlogits};

        HY3_TRY(hy3_head_logits(h, b->rows, at, count));
        HY3_TRY(h->backend->kernels.loss_forward(h->stream, &loss));
        if (!training)
            continue;
        HY3_TRY(h->backend->kernels.loss_backward(h->stream, &loss));
        HY3_TRY(logits_backward(h, at, count));
    }
    return HY3_OK;
}

hy3_status hy3_head_backward(const struct hy3_head *h)
{
    struct hy3_permute rows = label_rows(h);
    struct hy3_rmsnorm n = norm(h);

    HY3_TRY(h->backend->kernels.permute_backward(h->stream, &rows));
    HY3_TRY(h->backend->device.zero(h->stream, h->d, row_bytes(h, h->T)));
    return h->backend->kernels.rmsnorm_backward(h->stream, &n);
}
