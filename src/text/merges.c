/* SPDX-License-Identifier: Apache-2.0 */
/* merges.c - the table of merges and the two ways of applying it. */
#include "text/merges.h"

#include "base/memory.h"
#include "base/random.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { SHORT_MAX = 64 }; /* ids merged by scanning; more go through the heap */

#define HY3_MERGES_MAX (1u << 24)
#define NO_RANK        UINT32_MAX
#define NOWHERE        UINT32_MAX

struct pair {
    uint64_t ids; /* left << 32 | right */
    uint32_t rank;
    bool is_used;
};

struct symbol { /* of a long word: a doubly linked list in an array */
    int32_t id;
    uint32_t before, after, rank; /* rank of the pair that begins here */
};

struct hy3_merges {
    struct pair *table; /* [size], open addressing */
    size_t size;
    uint64_t seed;    /* of the hash: no file can foresee which pairs collide */
    int32_t *results; /* by rank */
    struct symbol *symbols;
    size_t symbols_capacity;
    uint64_t *heap; /* rank << 32 | symbol; may hold pairs that are gone */
    size_t heap_capacity, heap_count;
};

static uint64_t key_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static struct pair *find(const struct hy3_merges *merges, uint64_t ids)
{
    size_t at = XXH3_64bits_withSeed(&ids, sizeof ids, merges->seed) & (merges->size - 1);

    while (merges->table[at].is_used && merges->table[at].ids != ids)
        at = (at + 1) & (merges->size - 1);
    return &merges->table[at];
}

static uint32_t rank_of(const struct hy3_merges *merges, int32_t left, int32_t right)
{
    const struct pair *pair = find(merges, key_of(left, right));

    return pair->is_used ? pair->rank : NO_RANK;
}

/* The two parts of a merge in `joined` [parts' bytes + 2], each ending in NUL; false if it has
 * another form. */
static bool split_parts(const json_t *merge, char *joined, const char **left, const char **right)
{
    const char *text = json_string_value(merge), *space;

    *left = json_string_value(json_array_get(merge, 0));
    *right = json_string_value(json_array_get(merge, 1));
    if (json_is_array(merge))
        return json_array_size(merge) == 2 && *left && *right;
    if (!text || !(space = strchr(text, ' ')) || strchr(space + 1, ' '))
        return false;
    memcpy(joined, text, json_string_length(merge) + 1);
    joined[space - text] = '\0';
    *left = joined;
    *right = joined + (space - text) + 1;
    return true;
}

static hy3_status id_of(const json_t *vocab, const char *token, size_t number, const char *where,
                        int32_t *id)
{
    const json_t *value = json_object_get(vocab, token);

    if (!value)
        HY3_FAIL(HY3_EFORMAT, "%s: merge %zu names '%.60s', which is not in the vocabulary", where,
                 number, token);
    *id = (int32_t)json_integer_value(value);
    return HY3_OK;
}

static size_t bytes_of(const json_t *merge)
{
    if (json_is_array(merge))
        return json_string_length(json_array_get(merge, 0)) +
               json_string_length(json_array_get(merge, 1));
    return json_string_length(merge);
}

static hy3_status add(struct hy3_merges *merges, const json_t *merge, uint32_t rank,
                      const json_t *vocab, const char *where)
{
    hy3_status status = HY3_OK;
    const char *left, *right;
    size_t size = bytes_of(merge) + 2;
    int32_t left_id = 0, right_id = 0;
    char *parts = NULL, *whole = NULL;
    struct pair *pair;

    HY3_TRY_DONE(hy3_alloc(&parts, size, 1));
    HY3_TRY_DONE(hy3_alloc(&whole, size, 1));
    if (!split_parts(merge, parts, &left, &right))
        HY3_FAIL_DONE(HY3_EFORMAT, "%s: merge %u is neither a pair nor 'left right'", where,
                      rank + 1);
    snprintf(whole, size, "%s%s", left, right);
    HY3_TRY_DONE(id_of(vocab, left, rank + 1, where, &left_id));
    HY3_TRY_DONE(id_of(vocab, right, rank + 1, where, &right_id));
    HY3_TRY_DONE(id_of(vocab, whole, rank + 1, where, &merges->results[rank]));
    pair = find(merges, key_of(left_id, right_id));
    *pair = (struct pair){key_of(left_id, right_id), rank, true}; /* the last of equals holds */
done:
    hy3_free(parts);
    hy3_free(whole);
    return status;
}

hy3_status hy3_merges_create(const json_t *list, const json_t *vocab, const char *where,
                             struct hy3_merges **out)
{
    hy3_status status = HY3_OK;
    size_t count = json_array_size(list), i;
    struct hy3_merges *merges = NULL;
    const json_t *merge;
    uint32_t rank = 0;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&merges, 1, sizeof *merges));
    if (!json_is_array(list) || count > HY3_MERGES_MAX)
        HY3_FAIL_DONE(HY3_EFORMAT, "%s: the model has %s", where,
                      count > 0 ? "too many merges" : "no list 'merges'");
    merges->seed = hy3_random_secret();
    for (merges->size = 16; merges->size < 2 * count;)
        merges->size *= 2;
    HY3_TRY_DONE(hy3_alloc(&merges->table, merges->size, sizeof *merges->table));
    HY3_TRY_DONE(hy3_alloc(&merges->results, count, sizeof *merges->results));
    json_array_foreach(list, i, merge)
    {
        if (json_is_string(merge) && strncmp(json_string_value(merge), "#version", 8) == 0)
            continue;
        HY3_TRY_DONE(add(merges, merge, rank++, vocab, where));
    }
    *out = HY3_TAKE(merges);
done:
    hy3_merges_free(merges);
    return status;
}

void hy3_merges_free(struct hy3_merges *merges)
{
    if (!merges)
        return;
    hy3_free(merges->table);
    hy3_free(merges->results);
    hy3_free(merges->symbols);
    hy3_free(merges->heap);
    hy3_free(merges);
}

static size_t apply_by_scanning(const struct hy3_merges *merges, int32_t *ids, size_t count)
{
    uint32_t ranks[SHORT_MAX];
    size_t best;

    for (size_t i = 0; i + 1 < count; i++)
        ranks[i] = rank_of(merges, ids[i], ids[i + 1]);
    while (count > 1) {
        best = 0;
        for (size_t i = 1; i + 1 < count; i++)
            if (ranks[i] < ranks[best])
                best = i;
        if (ranks[best] == NO_RANK)
            break;
        ids[best] = merges->results[ranks[best]];
        count--;
        memmove(ids + best + 1, ids + best + 2, (count - best - 1) * sizeof *ids);
        memmove(ranks + best, ranks + best + 1, (count - best - 1) * sizeof *ranks);
        if (best + 1 < count)
            ranks[best] = rank_of(merges, ids[best], ids[best + 1]);
        if (best > 0)
            ranks[best - 1] = rank_of(merges, ids[best - 1], ids[best]);
    }
    return count;
}

static void heap_push(struct hy3_merges *merges, uint64_t entry)
{
    size_t at = merges->heap_count++, parent;

    for (; at > 0 && merges->heap[parent = (at - 1) / 2] > entry; at = parent)
        merges->heap[at] = merges->heap[parent];
    merges->heap[at] = entry;
}

static uint64_t heap_pop(struct hy3_merges *merges)
{
    uint64_t *heap = merges->heap, least = heap[0], last = heap[--merges->heap_count];
    size_t at = 0, child;

    while ((child = 2 * at + 1) < merges->heap_count) {
        if (child + 1 < merges->heap_count && heap[child + 1] < heap[child])
            child++;
        if (heap[child] >= last)
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = last;
    return least;
}

/* Looks up the pair that begins at symbol `at` anew. */
static void rank_symbol(struct hy3_merges *merges, uint32_t at)
{
    struct symbol *symbol = &merges->symbols[at];

    symbol->rank = NO_RANK;
    if (symbol->after != NOWHERE)
        symbol->rank = rank_of(merges, symbol->id, merges->symbols[symbol->after].id);
    if (symbol->rank != NO_RANK)
        heap_push(merges, (uint64_t)symbol->rank << 32 | at);
}

static void merge_at(struct hy3_merges *merges, uint32_t at)
{
    struct symbol *left = &merges->symbols[at], *right = &merges->symbols[left->after];

    left->id = merges->results[left->rank];
    left->after = right->after;
    right->rank = NO_RANK;
    if (right->after != NOWHERE)
        merges->symbols[right->after].before = at;
    rank_symbol(merges, at);
    if (left->before != NOWHERE)
        rank_symbol(merges, left->before);
}

static hy3_status apply_by_heap(struct hy3_merges *merges, int32_t *ids, size_t *count)
{
    uint32_t n = (uint32_t)*count;
    uint64_t entry;

    HY3_TRY(hy3_grow(&merges->symbols, &merges->symbols_capacity, n, sizeof *merges->symbols));
    /* each symbol is ranked once at first and two at each of up to n - 1 merges */
    HY3_TRY(hy3_grow(&merges->heap, &merges->heap_capacity, (size_t)3 * n, sizeof *merges->heap));
    merges->heap_count = 0;
    for (uint32_t i = 0; i < n; i++)
        merges->symbols[i] =
            (struct symbol){ids[i], i > 0 ? i - 1 : NOWHERE, i + 1 < n ? i + 1 : NOWHERE, NO_RANK};
    for (uint32_t i = 0; i < n; i++)
        rank_symbol(merges, i);
    while (merges->heap_count > 0) {
        entry = heap_pop(merges);
        if (merges->symbols[(uint32_t)entry].rank == (uint32_t)(entry >> 32))
            merge_at(merges, (uint32_t)entry);
    }
    *count = 0;
    for (uint32_t i = 0; i != NOWHERE; i = merges->symbols[i].after)
        ids[(*count)++] = merges->symbols[i].id;
    return HY3_OK;
}

hy3_status hy3_merges_apply(struct hy3_merges *merges, int32_t *ids, size_t *count)
{
    if (*count > SHORT_MAX)
        return apply_by_heap(merges, ids, count);
    *count = apply_by_scanning(merges, ids, *count);
    return HY3_OK;
}
