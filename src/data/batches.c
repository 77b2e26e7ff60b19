/* SPDX-License-Identifier: Apache-2.0 */
/* batches.c - from positions in an epoch to samples, from samples to micro-batches. */
#include "data/batches.h"

#include "base/memory.h"
#include "base/random.h"
#include "data/cut.h"

int64_t hy3_batches_global(const struct hy3_batches *batches)
{
    return batches->batch * batches->accumulation * batches->ranks;
}

int64_t hy3_batches_items(const struct hy3_batches *batches)
{
    return batches->packing ? batches->packing->rows : batches->count;
}

int64_t hy3_batches_steps_per_epoch(const struct hy3_batches *batches)
{
    int64_t size = hy3_batches_global(batches), items = hy3_batches_items(batches);

    return items / size + (items % size != 0);
}

int64_t hy3_batches_sample(const struct hy3_batches *batches, int64_t epoch, int64_t place)
{
    if (batches->shuffle)
        place = (int64_t)hy3_random_permute(batches->seed, HY3_RANDOM_ORDER, (uint64_t)epoch,
                                            (uint64_t)batches->count, (uint64_t)place);
    place += batches->first;
    if (batches->split_drawn)
        place = (int64_t)hy3_random_permute(batches->seed, HY3_RANDOM_SPLIT, 0,
                                            (uint64_t)hy3_dataset_count(batches->dataset),
                                            (uint64_t)place);
    return place;
}

/* Of packing: tokens of the sample at a place of epoch 0. */
static int64_t length_at(const void *of, int64_t place)
{
    const struct hy3_batches *batches = of;

    return hy3_dataset_length(batches->dataset, hy3_batches_sample(batches, 0, place));
}

hy3_status hy3_batches_pack(const struct hy3_batches *batches, int64_t length,
                            struct hy3_packing **out)
{
    return hy3_packing_create(batches->count, length, length_at, batches, out);
}

/* The places of epoch 0, or without packing of this epoch, whose samples an item has: those at
 * [*first, *end) of packing->order, or the place `first` itself. */
static void find_item(const struct hy3_batches *b, int64_t epoch, int64_t place, int64_t *first,
                      int64_t *end)
{
    if (b->packing && b->shuffle)
        place = (int64_t)hy3_random_permute(b->seed, HY3_RANDOM_ROWS, (uint64_t)epoch,
                                            (uint64_t)b->packing->rows, (uint64_t)place);
    *first = b->packing ? b->packing->starts[place] : place;
    *end = b->packing ? b->packing->starts[place + 1] : place + 1;
}

/* Dataset index of number `i` of an item. */
static int64_t sample_at(const struct hy3_batches *b, int64_t epoch, int64_t i)
{
    return b->packing ? hy3_batches_sample(b, 0, hy3_packing_place(b->packing, i))
                      : hy3_batches_sample(b, epoch, i);
}

/* Multiply-adds of a pass over n tokens are proportional to n (N + L H D n) with N weights that
 * each token passes through, L layers of H heads of D: Chowdhery et al. 2022 (PaLM), appendix B,
 * halved for causal attention. */
static int64_t item_cost(const struct hy3_batches *b, int64_t epoch, int64_t place)
{
    int64_t cost = 0, first, end;

    find_item(b, epoch, place, &first, &end);
    for (int64_t i = first; i < end; i++) {
        int64_t n = hy3_dataset_length(b->dataset, sample_at(b, epoch, i));

        cost += n * (n + b->attention_length);
    }
    return cost;
}

/* Deals `step` (from 0, over all epochs), unless it was the last to be dealt. */
static void deal_step(const struct hy3_batches *b, int64_t step, struct hy3_batch *out)
{
    int64_t steps = hy3_batches_steps_per_epoch(b), epoch = step / steps;
    int64_t begin = step % steps * hy3_batches_global(b), left = hy3_batches_items(b) - begin;

    if (out->dealt == step)
        return;
    left = left < out->deal.capacity ? left : out->deal.capacity;
    for (int64_t i = 0; i < left; i++)
        out->deal.costs[i] = item_cost(b, epoch, begin + i);
    hy3_deal_make(&out->deal, left, b->keeps_order);
    out->dealt = step;
}

/* Most items of a micro-batch, and of a step. */
static void bound_items(const struct hy3_batches *b, int64_t *micro, int64_t *step)
{
    int64_t items = hy3_batches_items(b);

    if (__builtin_mul_overflow(b->batch * b->accumulation, (int64_t)b->ranks, step) ||
        *step > items)
        *step = items;
    *micro = b->batch < items ? b->batch : items;
}

hy3_status hy3_batch_create(const struct hy3_batches *batches, struct hy3_batch **out)
{
    hy3_status status = HY3_OK;
    struct hy3_batch *b = NULL;
    const struct hy3_packing *packing = batches->packing;
    int64_t longest = packing ? packing->fullest : hy3_dataset_longest(batches->dataset);
    int64_t most = packing ? packing->most : 1, micro, step, samples;

    *out = NULL;
    bound_items(batches, &micro, &step);
    HY3_TRY_DONE(hy3_alloc(&b, 1, sizeof *b));
    b->dealt = -1;
    if (__builtin_mul_overflow(micro, longest, &b->token_capacity) ||
        __builtin_mul_overflow(micro, most, &samples))
        HY3_FAIL_DONE(HY3_ENOMEM, "a micro-batch of %lld %s is too large", (long long)micro,
                      packing ? "rows" : "samples");
    samples = samples < batches->count ? samples : batches->count;
    b->sample_capacity = samples;
    HY3_TRY_DONE(hy3_deal_create(step, batches->batch, batches->ranks, &b->deal));
    HY3_TRY_DONE(hy3_alloc(&b->ids, (size_t)b->token_capacity, sizeof *b->ids));
    HY3_TRY_DONE(hy3_alloc(&b->positions, (size_t)b->token_capacity, sizeof *b->positions));
    HY3_TRY_DONE(hy3_alloc(&b->targets, (size_t)b->token_capacity, sizeof *b->targets));
    HY3_TRY_DONE(hy3_alloc(&b->mask, (size_t)b->token_capacity, sizeof *b->mask));
    b->is_weighted = hy3_dataset_is_weighted(batches->dataset);
    if (b->is_weighted)
        HY3_TRY_DONE(hy3_alloc(&b->weights, (size_t)b->token_capacity, sizeof *b->weights));
    HY3_TRY_DONE(hy3_alloc(&b->starts, (size_t)samples + 2, sizeof *b->starts));
    HY3_TRY_DONE(hy3_alloc(&b->samples, (size_t)samples + 1, sizeof *b->samples));
    if (batches->parts > 1)
        HY3_TRY_DONE(hy3_cut_open(batches->parts, samples, &b->cut));
    *out = HY3_TAKE(b);
done:
    hy3_batch_free(b);
    return status;
}

void hy3_batch_free(struct hy3_batch *batch)
{
    if (!batch)
        return;
    hy3_free(batch->ids);
    hy3_free(batch->positions);
    hy3_free(batch->targets);
    hy3_free(batch->mask);
    hy3_free(batch->weights);
    hy3_free(batch->starts);
    hy3_free(batch->samples);
    hy3_cut_free(&batch->cut);
    hy3_deal_free(&batch->deal);
    hy3_free(batch);
}

/* The weights of a sample, shifted as its targets are. */
static hy3_status read_weights(const struct hy3_dataset *dataset, int64_t sample, int64_t length,
                               struct hy3_batch *out)
{
    float *weights = out->weights + out->T;

    HY3_TRY(hy3_dataset_weights(dataset, sample, out->mask + out->T, weights));
    memmove(weights, weights + 1, (size_t)(length - 1) * sizeof *weights);
    weights[length - 1] = 0;
    return HY3_OK;
}

/* Appends a sample; its targets are its ids shifted by one. */
static hy3_status append(const struct hy3_dataset *dataset, int64_t sample, struct hy3_batch *out)
{
    int64_t at = out->T, length = hy3_dataset_length(dataset, sample);

    HY3_ASSERT(out->S < out->sample_capacity && at + length <= out->token_capacity);
    HY3_TRY(hy3_dataset_read(dataset, sample, out->ids + at, out->mask + at));
    for (int64_t t = 0; t < length; t++) {
        bool is_label = t + 1 < length && out->mask[at + t + 1];

        out->positions[at + t] = (int32_t)t;
        out->targets[at + t] = is_label ? out->ids[at + t + 1] : -1;
        out->labels += is_label;
    }
    if (out->is_weighted)
        HY3_TRY(read_weights(dataset, sample, length, out));
    out->samples[out->S++] = sample;
    out->starts[out->S] = out->T = at + length;
    if (length > out->longest)
        out->longest = length;
    return HY3_OK;
}

hy3_status hy3_batches_load(const struct hy3_batches *batches, int64_t step, int64_t micro,
                            struct hy3_batch *out)
{
    int64_t steps = hy3_batches_steps_per_epoch(batches), epoch = step / steps;
    int64_t begin = step % steps * hy3_batches_global(batches), first, end;

    deal_step(batches, step, out);
    hy3_deal_find(&out->deal, micro, batches->rank, &first, &end);
    out->T = out->S = out->longest = out->labels = out->starts[0] = 0;
    out->step = step;
    for (int64_t i = first; i < end; i++) {
        int64_t sample, last;

        find_item(batches, epoch, begin + out->deal.order[i], &sample, &last);
        for (; sample < last; sample++)
            HY3_TRY(append(batches->dataset, sample_at(batches, epoch, sample), out));
    }
    if (out->cut.parts > 1)
        hy3_cut_batch(out, batches->part);
    return HY3_OK;
}

void hy3_batches_balance(const struct hy3_batches *batches, struct hy3_batch *batch,
                         struct hy3_balance *out)
{
    enum { LOOKED_AT = 1 << 16 };

    const int64_t steps = hy3_batches_steps_per_epoch(batches);
    int64_t count = LOOKED_AT / batch->deal.capacity;

    *out = (struct hy3_balance){0};
    count = count < 1 ? 1 : count < steps ? count : steps;
    for (int64_t i = 0; i < count; i++) {
        deal_step(batches, (int64_t)((double)steps / (double)count * (double)i), batch);
        out->items += batch->deal.places;
        out->mean += batch->deal.mean;
        out->in_order += batch->deal.in_order;
        out->dealt += batch->deal.dealt;
    }
}
