/* SPDX-License-Identifier: Apache-2.0 */
/* cut.c - moves two chunks to the front. */
#include "data/cut.h"

#include "base/memory.h"
#include "base/zigzag.h"

hy3_status hy3_cut_open(int parts, int64_t samples, struct hy3_cut *cut)
{
    size_t n = (size_t)samples + 1;

    *cut = (struct hy3_cut){.parts = parts};
    HY3_TRY(hy3_alloc(&cut->lengths, n, sizeof *cut->lengths));
    HY3_TRY(hy3_alloc(&cut->first, n, sizeof *cut->first));
    HY3_TRY(hy3_alloc(&cut->end, n, sizeof *cut->end));
    HY3_TRY(hy3_alloc(&cut->starts, n, sizeof *cut->starts));
    return hy3_alloc(&cut->samples, n, sizeof *cut->samples);
}

void hy3_cut_free(struct hy3_cut *cut)
{
    hy3_free(cut->lengths);
    hy3_free(cut->first);
    hy3_free(cut->end);
    hy3_free(cut->starts);
    hy3_free(cut->samples);
}

/* Appends what tokens [first, end) of the whole micro-batch have of sample s. */
static void add_segment(struct hy3_batch *b, int64_t s, int64_t first, int64_t end)
{
    const int64_t *starts = b->cut.starts;
    int64_t from = starts[s] > first ? starts[s] : first;
    int64_t to = starts[s + 1] < end ? starts[s + 1] : end;

    if (from >= to)
        return;
    b->samples[b->S] = b->cut.samples[s];
    b->cut.lengths[b->S] = starts[s + 1] - starts[s];
    b->cut.first[b->S] = starts[s];
    b->cut.end[b->S] = to;
    b->starts[b->S + 1] = b->starts[b->S] + to - from;
    b->S++;
}

static void move_tokens(struct hy3_batch *b, int64_t to, int64_t from, int64_t count)
{
    memmove(b->ids + to, b->ids + from, (size_t)count * sizeof *b->ids);
    memmove(b->positions + to, b->positions + from, (size_t)count * sizeof *b->positions);
    memmove(b->targets + to, b->targets + from, (size_t)count * sizeof *b->targets);
    if (b->is_weighted)
        memmove(b->weights + to, b->weights + from, (size_t)count * sizeof *b->weights);
}

void hy3_cut_batch(struct hy3_batch *b, int part)
{
    const int P = b->cut.parts;
    const int64_t T = b->T, S = b->S;

    memcpy(b->cut.starts, b->starts, (size_t)(S + 1) * sizeof *b->starts);
    memcpy(b->cut.samples, b->samples, (size_t)S * sizeof *b->samples);
    b->cut.T = T;
    b->T = b->S = b->labels = 0;
    for (int half = 0; half < 2; half++) {
        int chunk = hy3_zigzag_chunk(P, part, half);
        int64_t first = hy3_zigzag_first(T, P, chunk), count = hy3_zigzag_tokens(T, P, chunk);

        for (int64_t s = 0; s < S; s++)
            add_segment(b, s, first, first + count);
        move_tokens(b, b->T, first, count);
        b->T += count;
    }
    for (int64_t t = 0; t < b->T; t++)
        b->labels += b->targets[t] >= 0;
}
