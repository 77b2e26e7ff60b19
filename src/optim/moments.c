/* SPDX-License-Identifier: Apache-2.0 */
/* moments.c - moments in three formats, and fp32 for files. */
#include "optim/moments.h"

#include "base/memory.h"

enum { ALIGN = 64, BLOCK = HY3_MOMENT_BLOCK };

int64_t hy3_moments_lead(const struct hy3_range *range)
{
    return range->moments == HY3_MOMENTS_8BIT ? range->first % BLOCK : 0;
}

static hy3_status allocate(struct hy3_moments *m)
{
    size_t bytes = m->at[m->count], scales = (size_t)m->scale_at[m->count] * sizeof(float);

    HY3_TRY(hy3_placement_alloc(m->device, &m->placement, bytes, &m->m));
    HY3_TRY(hy3_placement_alloc(m->device, &m->placement, bytes, &m->v));
    HY3_TRY(hy3_placement_alloc(m->device, &m->placement, scales, &m->m_scale));
    return hy3_placement_alloc(m->device, &m->placement, scales, &m->v_scale);
}

hy3_status hy3_moments_open(const struct hy3_device *device, const struct hy3_placement *placement,
                            const struct hy3_range *ranges, int count, struct hy3_moments *m)
{
    *m = (struct hy3_moments){
        .device = device, .placement = *placement, .ranges = ranges, .part = {.range = -1}};
    HY3_TRY(hy3_alloc(&m->at, (size_t)count + 1, sizeof *m->at));
    HY3_TRY(hy3_alloc(&m->scale_at, (size_t)count + 1, sizeof *m->scale_at));
    for (int i = 0; i < count; i++) {
        const struct hy3_range *r = &ranges[i];
        size_t bytes = (size_t)(hy3_moments_lead(r) + r->count) * hy3_moment_size(r->moments);
        bool has_scales = r->moments == HY3_MOMENTS_8BIT;

        m->at[i + 1] = m->at[i] + (bytes + ALIGN - 1) / ALIGN * ALIGN;
        m->scale_at[i + 1] =
            m->scale_at[i] + (has_scales ? hy3_moment_blocks(r->first, r->count) : 0);
    }
    m->count = count;
    return allocate(m);
}

void hy3_moments_close(struct hy3_moments *m)
{
    size_t bytes = m->count > 0 ? m->at[m->count] : 0;
    size_t scales = m->count > 0 ? (size_t)m->scale_at[m->count] * sizeof(float) : 0;

    hy3_placement_free(m->device, &m->placement, bytes, m->m);
    hy3_placement_free(m->device, &m->placement, bytes, m->v);
    hy3_placement_free(m->device, &m->placement, scales, m->m_scale);
    hy3_placement_free(m->device, &m->placement, scales, m->v_scale);
    hy3_free(m->at);
    hy3_free(m->scale_at);
    *m = (struct hy3_moments){0};
}

size_t hy3_moments_bytes(const struct hy3_moments *m)
{
    return 2 * (m->at[m->count] + (size_t)m->scale_at[m->count] * sizeof(float));
}

/* A place in one of the two arrays. */
static char *address(const struct hy3_moments *m, bool is_first, int range, int64_t i)
{
    const struct hy3_range *r = &m->ranges[range];

    return (is_first ? m->m : m->v) + m->at[range] +
           (size_t)(hy3_moments_lead(r) + i) * hy3_moment_size(r->moments);
}

/* The block, counted from the range's first one, of an element. */
static int64_t block_of(const struct hy3_range *range, int64_t i)
{
    return (hy3_moments_lead(range) + i) / BLOCK;
}

static float *scale_address(const struct hy3_moments *m, bool is_first, int range, int64_t block)
{
    return (is_first ? m->m_scale : m->v_scale) + m->scale_at[range] + block;
}

void hy3_moments_set(const struct hy3_moments *m, int range, int64_t first,
                     struct hy3_adamw *update)
{
    const struct hy3_range *r = &m->ranges[range];

    update->moments = r->moments;
    update->m = address(m, true, range, first);
    update->v = address(m, false, range, first);
    if (r->moments == HY3_MOMENTS_FP32)
        return;
    update->tensor = r->tensor;
    update->first = r->first + first;
    if (r->moments == HY3_MOMENTS_8BIT) {
        update->m_scale = scale_address(m, true, range, block_of(r, first));
        update->v_scale = scale_address(m, false, range, block_of(r, first));
    }
}

int64_t hy3_moments_piece(const struct hy3_range *range, int64_t first, int64_t most)
{
    int64_t count = hy3_span_piece((struct hy3_span){0, range->count}, first, most).count;

    if (range->moments == HY3_MOMENTS_8BIT && first + count < range->count)
        count -= (hy3_moments_lead(range) + first + count) % BLOCK;
    return count;
}

/* Elements of a range that one of its blocks has. */
static struct hy3_span elements_of(const struct hy3_range *range, int64_t block)
{
    return hy3_span_intersect((struct hy3_span){block * BLOCK - hy3_moments_lead(range), BLOCK},
                              (struct hy3_span){0, range->count});
}

/* Copies codes of a span and the scales of its blocks to the host, or from there. */
static hy3_status copy_codes(const struct hy3_moments *m, bool is_first, int range,
                             struct hy3_span span, uint8_t *codes, float *scales, bool put)
{
    const struct hy3_range *r = &m->ranges[range];
    int64_t block = block_of(r, span.first), end = block_of(r, hy3_span_end(span) - 1) + 1;
    float *kept = scale_address(m, is_first, range, block);
    char *place = address(m, is_first, range, span.first);
    size_t bytes = (size_t)(end - block) * sizeof *scales;

    HY3_TRY(m->device->copy(NULL, put ? place : (char *)codes, put ? (char *)codes : place,
                            (size_t)span.count));
    HY3_TRY(m->device->copy(NULL, put ? kept : scales, put ? scales : kept, bytes));
    return m->device->synchronize(NULL);
}

/* Numbers of a part of a block, at the end or the start of what is put. */
static hy3_status put_part(struct hy3_moments *m, bool is_first, int range, struct hy3_span span,
                           const float *values)
{
    const struct hy3_moment_book *book = hy3_moment_book(is_first);
    int64_t block = block_of(&m->ranges[range], span.first);
    struct hy3_span all = elements_of(&m->ranges[range], block);
    uint8_t codes[BLOCK];
    float scale;

    if (m->part.range != range || m->part.first != is_first || m->part.block != block) {
        HY3_TRY(copy_codes(m, is_first, range, all, codes, &scale, false));
        hy3_moments_decode(book, codes, scale, all.count, m->part.x);
        m->part.range = range;
        m->part.first = is_first;
        m->part.block = block;
    }
    memcpy(m->part.x + span.first - all.first, values, (size_t)span.count * sizeof *values);
    scale = hy3_moments_encode(book, m->part.x, all.count, codes);
    return copy_codes(m, is_first, range, all, codes, &scale, true);
}

/* Numbers of whole blocks. */
static hy3_status put_blocks(const struct hy3_moments *m, bool is_first, int range,
                             struct hy3_span span, const float *values, void *const host[2])
{
    const struct hy3_moment_book *book = hy3_moment_book(is_first);
    const struct hy3_range *r = &m->ranges[range];
    int64_t block = block_of(r, span.first), end = block_of(r, hy3_span_end(span) - 1) + 1;
    uint8_t *codes = host[0];
    float *scales = host[1];

#pragma omp parallel for schedule(static)
    for (int64_t i = block; i < end; i++) {
        struct hy3_span e = elements_of(r, i);

        scales[i - block] = hy3_moments_encode(book, values + e.first - span.first, e.count,
                                               codes + e.first - span.first);
    }
    return copy_codes(m, is_first, range, span, codes, scales, true);
}

static hy3_status put_coded(struct hy3_moments *m, bool is_first, int range, struct hy3_span span,
                            const float *values, void *const host[2])
{
    const struct hy3_range *r = &m->ranges[range];

    while (span.count > 0) {
        struct hy3_span block = elements_of(r, block_of(r, span.first));
        int64_t last = block_of(r, hy3_span_end(span) - 1), n;
        bool is_whole = block.first == span.first && hy3_span_end(block) <= hy3_span_end(span);

        if (!is_whole) {
            n = hy3_span_intersect(span, block).count;
            HY3_TRY(put_part(m, is_first, range, (struct hy3_span){span.first, n}, values));
        } else { /* up to a block that the span ends in, if it does */
            if (hy3_span_end(elements_of(r, last)) > hy3_span_end(span))
                last--;
            n = hy3_span_end(elements_of(r, last)) - span.first;
            HY3_TRY(put_blocks(m, is_first, range, (struct hy3_span){span.first, n}, values, host));
        }
        span.first += n;
        span.count -= n;
        values += n;
    }
    return HY3_OK;
}

static hy3_status get_coded(const struct hy3_moments *m, bool is_first, int range,
                            struct hy3_span span, float *values, void *const host[2])
{
    const struct hy3_moment_book *book = hy3_moment_book(is_first);
    const struct hy3_range *r = &m->ranges[range];
    int64_t block = block_of(r, span.first), end = block_of(r, hy3_span_end(span) - 1) + 1;
    const uint8_t *codes = host[0];
    const float *scales = host[1];

    HY3_TRY(copy_codes(m, is_first, range, span, host[0], host[1], false));
#pragma omp parallel for schedule(static)
    for (int64_t i = block; i < end; i++) {
        struct hy3_span e = hy3_span_intersect(elements_of(r, i), span);

        hy3_moments_decode(book, codes + e.first - span.first, scales[i - block], e.count,
                           values + e.first - span.first);
    }
    return HY3_OK;
}

/* By all threads: this may be the first touch of a checkpoint's copy. */
static void convert(const void *from, hy3_dtype from_dtype, void *to, hy3_dtype to_dtype,
                    int64_t count)
{
    size_t step = 1 << 16, n = (size_t)count;

#pragma omp parallel for schedule(static)
    for (size_t i = 0; i < n; i += step)
        hy3_convert((const char *)from + i * hy3_dtype_size(from_dtype), from_dtype,
                    (char *)to + i * hy3_dtype_size(to_dtype), to_dtype,
                    n - i < step ? n - i : step);
}

hy3_status hy3_moments_put(struct hy3_moments *m, bool is_first, int range, struct hy3_span piece,
                           const float *values, void *const host[2])
{
    const struct hy3_range *r = &m->ranges[range];
    hy3_dtype dtype = r->moments == HY3_MOMENTS_BF16 ? HY3_BF16 : HY3_FP32;

    if (r->moments == HY3_MOMENTS_8BIT)
        return put_coded(m, is_first, range, piece, values, host);
    convert(values, HY3_FP32, host[0], dtype, piece.count);
    HY3_TRY(m->device->copy(NULL, address(m, is_first, range, piece.first), host[0],
                            (size_t)piece.count * hy3_dtype_size(dtype)));
    return m->device->synchronize(NULL);
}

hy3_status hy3_moments_get(const struct hy3_moments *m, bool is_first, int range,
                           struct hy3_span piece, float *values, void *const host[2])
{
    const struct hy3_range *r = &m->ranges[range];
    hy3_dtype dtype = r->moments == HY3_MOMENTS_BF16 ? HY3_BF16 : HY3_FP32;

    if (r->moments == HY3_MOMENTS_8BIT)
        return get_coded(m, is_first, range, piece, values, host);
    HY3_TRY(m->device->copy(NULL, host[0], address(m, is_first, range, piece.first),
                            (size_t)piece.count * hy3_dtype_size(dtype)));
    HY3_TRY(m->device->synchronize(NULL));
    convert(host[0], dtype, values, HY3_FP32, piece.count);
    return HY3_OK;
}

void hy3_moments_updated(struct hy3_moments *m)
{
    m->part.range = -1;
}
