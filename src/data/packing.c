/* SPDX-License-Identifier: Apache-2.0 */
/* packing.c - best fit decreasing, window by window. */
#include "data/packing.h"

#include "base/memory.h"
#include "comm/launch.h"

#include <omp.h>

enum { WINDOW = HY3_PACKING_WINDOW, LAST = 0x8000, PLACE = LAST - 1 };

/* Keys that sort by a number of tokens, then by a place or a row of the window. */
#define KEY(tokens, index) ((uint64_t)(tokens) << 16 | (uint64_t)(index))
#define TOKENS(key)        ((int64_t)((key) >> 16))
#define INDEX(key)         ((int)((key)&0xffff))

/* One thread's, for one window. */
struct window {
    uint64_t samples[WINDOW]; /* by falling length */
    uint64_t open[WINDOW];    /* rows by the space that is left in them */
    int rows;
    int16_t row[WINDOW];   /* of each sample, in the order in which rows were begun */
    int16_t named[WINDOW]; /* of each row, its number by its first sample; -1: none yet */
    int16_t count[WINDOW]; /* samples of each row, then the place of its next sample in order */
    int32_t length[WINDOW];
    int64_t tokens, fullest, most; /* of all windows of the thread, as in hy3_packing */
};

static int by_key(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

/* The first of the sorted keys that is `key` or more; `count` if none is. */
static int find(const uint64_t *keys, int count, uint64_t key)
{
    int low = 0, high = count;

    while (low < high) {
        int middle = (low + high) / 2;

        if (keys[middle] < key)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

/* Removes the key at `from` and inserts a smaller one. */
static void lower(uint64_t *keys, int from, uint64_t key)
{
    int to = find(keys, from, key);

    memmove(keys + to + 1, keys + to, (size_t)(from - to) * sizeof *keys);
    keys[to] = key;
}

/* Gives each of the n samples its row. */
static void fit(struct window *w, int n, int64_t length)
{
    w->rows = 0;
    for (int i = 0; i < n; i++) {
        const int sample = INDEX(w->samples[i]);
        const int64_t tokens = w->length[sample];
        int at = find(w->open, w->rows, KEY(tokens, 0));

        if (at == w->rows) { /* a new row; it has the most space of all */
            w->open[at] = KEY(length, at);
            w->rows++;
        }
        w->row[sample] = (int16_t)INDEX(w->open[at]);
        lower(w->open, at, KEY(TOKENS(w->open[at]) - tokens, w->row[sample]));
    }
}

/* The rows by their first samples, and the samples of each by their places. */
static void arrange(struct window *w, int n, uint16_t *order)
{
    int rows = 0, first = 0;

    memset(w->named, -1, sizeof w->named);
    memset(w->count, 0, sizeof w->count);
    for (int i = 0; i < n; i++) {
        if (w->named[w->row[i]] < 0)
            w->named[w->row[i]] = (int16_t)rows++;
        w->row[i] = w->named[w->row[i]];
        w->count[w->row[i]]++;
    }
    for (int r = 0; r < rows; r++) {
        int samples = w->count[r];

        w->most = samples > w->most ? samples : w->most;
        w->count[r] = (int16_t)first;
        first += samples;
    }
    for (int i = 0; i < n; i++)
        order[w->count[w->row[i]]++] = (uint16_t)i;
    for (int r = 0; r < rows; r++)
        order[w->count[r] - 1] |= LAST;
}

static void pack_window(struct hy3_packing *p, int64_t first, hy3_packing_length *length_of,
                        const void *of, struct window *w)
{
    int n = (int)(p->samples - first < WINDOW ? p->samples - first : WINDOW);

    for (int i = 0; i < n; i++) {
        int64_t tokens = length_of(of, first + i);

        HY3_ASSERT(tokens >= 0 && tokens <= p->length);
        w->length[i] = (int32_t)tokens;
        w->tokens += tokens;
        w->samples[i] = KEY(p->length - tokens, i);
    }
    qsort(w->samples, (size_t)n, sizeof *w->samples, by_key);
    fit(w, n, p->length);
    if (p->length - TOKENS(w->open[0]) > w->fullest)
        w->fullest = p->length - TOKENS(w->open[0]);
    arrange(w, n, p->order + first);
}

/* What the windows of a thread hold together. */
static void add(struct hy3_packing *p, const struct window *w)
{
    p->tokens += w->tokens;
    if (w->fullest > p->fullest)
        p->fullest = w->fullest;
    if (w->most > p->most)
        p->most = w->most;
}

static hy3_status find_starts(struct hy3_packing *p)
{
    int64_t row = 0;

    for (int64_t i = 0; i < p->samples; i++)
        p->rows += (p->order[i] & LAST) != 0;
    HY3_TRY(hy3_alloc(&p->starts, (size_t)p->rows + 1, sizeof *p->starts));
    for (int64_t i = 0; i < p->samples; i++)
        if (p->order[i] & LAST)
            p->starts[++row] = i + 1;
    return HY3_OK;
}

hy3_status hy3_packing_create(int64_t samples, int64_t length, hy3_packing_length *length_of,
                              const void *of, struct hy3_packing **out)
{
    hy3_status status = HY3_OK;
    struct hy3_packing *p = NULL;
    struct window *windows = NULL;
    int threads = samples > WINDOW ? hy3_threads() : 1;

    *out = NULL;
    HY3_ASSERT(length <= INT32_MAX);
    HY3_TRY_DONE(hy3_alloc(&p, 1, sizeof *p));
    p->samples = samples;
    p->length = length;
    HY3_TRY_DONE(hy3_alloc(&p->order, (size_t)samples, sizeof *p->order));
    HY3_TRY_DONE(hy3_alloc(&windows, (size_t)threads, sizeof *windows));
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(dynamic)
        for (int64_t first = 0; first < samples; first += WINDOW)
            pack_window(p, first, length_of, of, &windows[omp_get_thread_num()]);
    }
    for (int t = 0; t < threads; t++)
        add(p, &windows[t]);
    HY3_TRY_DONE(find_starts(p));
    *out = HY3_TAKE(p);
done:
    hy3_free(windows);
    hy3_packing_free(p);
    return status;
}

void hy3_packing_free(struct hy3_packing *packing)
{
    if (!packing)
        return;
    hy3_free(packing->order);
    hy3_free(packing->starts);
    hy3_free(packing);
}

int64_t hy3_packing_place(const struct hy3_packing *packing, int64_t i)
{
    return i / WINDOW * WINDOW + (packing->order[i] & PLACE);
}

double hy3_packing_fill(const struct hy3_packing *packing)
{
    return (double)packing->tokens / ((double)packing->rows * (double)packing->length);
}
