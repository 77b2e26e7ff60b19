/* SPDX-License-Identifier: Apache-2.0 */
/* moment_copy.c - fp32, bf16, or codes with what stands at their edges. */
#include "optim/moment_copy.h"

#include "backend/moments.h"
#include "base/memory.h"

enum { BLOCK = HY3_MOMENT_BLOCK };

static struct hy3_span blocks_in(enum hy3_moment_format format, struct hy3_span span)
{
    int64_t first = (span.first + BLOCK - 1) / BLOCK * BLOCK;
    int64_t end = hy3_span_end(span) / BLOCK * BLOCK;

    if (format != HY3_MOMENTS_8BIT || end <= first)
        return (struct hy3_span){span.first, 0};
    return (struct hy3_span){first, end - first};
}

size_t hy3_moment_copy_bytes(enum hy3_moment_format format, struct hy3_span span)
{
    struct hy3_span blocks = blocks_in(format, span);

    if (format != HY3_MOMENTS_8BIT)
        return (size_t)span.count * hy3_moment_size(format);
    return (size_t)blocks.count + (size_t)(blocks.count / BLOCK) * sizeof(float) +
           (size_t)(span.count - blocks.count) * sizeof(float);
}

hy3_status hy3_moment_copy_open(enum hy3_moment_format format, bool is_first, struct hy3_span span,
                                struct hy3_moment_copy *c)
{
    *c = (struct hy3_moment_copy){
        .format = format, .is_first = is_first, .span = span, .blocks = blocks_in(format, span)};
    if (format != HY3_MOMENTS_8BIT)
        return hy3_alloc(&c->numbers, (size_t)span.count, hy3_moment_size(format));
    HY3_TRY(hy3_alloc(&c->numbers, (size_t)c->blocks.count, 1));
    HY3_TRY(hy3_alloc(&c->scales, (size_t)(c->blocks.count / BLOCK), sizeof *c->scales));
    return hy3_alloc(&c->edges, (size_t)(span.count - c->blocks.count), sizeof *c->edges);
}

void hy3_moment_copy_close(struct hy3_moment_copy *c)
{
    hy3_free(c->numbers);
    hy3_free(c->scales);
    hy3_free(c->edges);
    *c = (struct hy3_moment_copy){0};
}

struct hy3_span hy3_moment_copy_piece(const struct hy3_moment_copy *c, int64_t first)
{
    int64_t end = (first + HY3_MOMENT_COPY_PIECE) / BLOCK * BLOCK;

    return hy3_span_intersect((struct hy3_span){first, end - first}, c->span);
}

/* Copies the part of a piece that lies at the edges, to the copy or from it; `behind` what lies
 * behind the blocks, or what lies before them. */
static void copy_edge(const struct hy3_moment_copy *c, struct hy3_span piece, float *values,
                      bool behind, bool put)
{
    int64_t first = behind ? hy3_span_end(c->blocks) : c->span.first;
    int64_t end = behind ? hy3_span_end(c->span) : c->blocks.first;
    struct hy3_span part = hy3_span_intersect(piece, (struct hy3_span){first, end - first});
    float *edge = c->edges + part.first - c->span.first - (behind ? c->blocks.count : 0);
    float *value = values + part.first - piece.first;

    if (part.count > 0)
        memcpy(put ? edge : value, put ? value : edge, (size_t)part.count * sizeof *edge);
}

/* A block, or the part of it that is in `span`. */
static void decode(const struct hy3_moment_copy *c, int64_t first, struct hy3_span span,
                   float *values)
{
    const uint8_t *codes = (const uint8_t *)c->numbers + first - c->blocks.first;
    struct hy3_span part = hy3_span_intersect(span, (struct hy3_span){first, BLOCK});
    float x[BLOCK];

    hy3_moments_decode(hy3_moment_book(c->is_first), codes,
                       c->scales[(first - c->blocks.first) / BLOCK], BLOCK, x);
    memcpy(values + part.first - span.first, x + part.first - first,
           (size_t)part.count * sizeof *x);
}

void hy3_moment_copy_put(struct hy3_moment_copy *c, struct hy3_span piece, const float *values)
{
    struct hy3_span blocks = hy3_span_intersect(piece, c->blocks);
    const struct hy3_moment_book *book = hy3_moment_book(c->is_first);
    size_t size = hy3_moment_size(c->format);

    if (c->format != HY3_MOMENTS_8BIT) {
        hy3_convert(values, HY3_FP32,
                    (char *)c->numbers + (size_t)(piece.first - c->span.first) * size,
                    size == 2 ? HY3_BF16 : HY3_FP32, (size_t)piece.count);
        return;
    }
#pragma omp parallel for schedule(static)
    for (int64_t i = blocks.first; i < hy3_span_end(blocks); i += BLOCK)
        c->scales[(i - c->blocks.first) / BLOCK] = hy3_moments_encode(
            book, values + i - piece.first, BLOCK, (uint8_t *)c->numbers + i - c->blocks.first);
    copy_edge(c, piece, (float *)(uintptr_t)values, false, true);
    copy_edge(c, piece, (float *)(uintptr_t)values, true, true);
}

void hy3_moment_copy_get(const struct hy3_moment_copy *c, struct hy3_span span, float *values)
{
    struct hy3_span blocks = hy3_span_intersect(span, c->blocks);
    size_t size = hy3_moment_size(c->format);

    if (c->format != HY3_MOMENTS_8BIT) {
        hy3_convert((const char *)c->numbers + (size_t)(span.first - c->span.first) * size,
                    size == 2 ? HY3_BF16 : HY3_FP32, values, HY3_FP32, (size_t)span.count);
        return;
    }
    for (int64_t i = blocks.first / BLOCK; blocks.count > 0 && i * BLOCK < hy3_span_end(blocks);
         i++)
        decode(c, i * BLOCK, span, values);
    copy_edge(c, span, values, false, false);
    copy_edge(c, span, values, true, false);
}
