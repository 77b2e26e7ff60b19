/* SPDX-License-Identifier: Apache-2.0 */
/* batches.c - from positions in an epoch to samples, from samples to micro-batches. */
#include "data/batches.h"

#include "base/memory.h"
#include "base/random.h"

int64_t hy3_batches_global(const struct hy3_batches *batches)
{
    return batches->batch * batches->accumulation * batches->ranks;
}

int64_t hy3_batches_steps_per_epoch(const struct hy3_batches *batches)
{
    int64_t size = hy3_batches_global(batches);

    return batches->count / size + (batches->count % size != 0);
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

hy3_status hy3_batch_create(const struct hy3_batches *batches, struct hy3_batch **out)
{
    hy3_status status = HY3_OK;
    struct hy3_batch *b = NULL;
    int64_t samples = batches->batch < batches->count ? batches->batch : batches->count;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&b, 1, sizeof *b));
    b->sample_capacity = samples;
    if (__builtin_mul_overflow(samples, hy3_dataset_longest(batches->dataset), &b->token_capacity))
        HY3_FAIL_DONE(HY3_ENOMEM, "a micro-batch of %lld samples is too large", (long long)samples);
    HY3_TRY_DONE(hy3_alloc(&b->ids, (size_t)b->token_capacity, sizeof *b->ids));
    HY3_TRY_DONE(hy3_alloc(&b->positions, (size_t)b->token_capacity, sizeof *b->positions));
    HY3_TRY_DONE(hy3_alloc(&b->targets, (size_t)b->token_capacity, sizeof *b->targets));
    HY3_TRY_DONE(hy3_alloc(&b->mask, (size_t)b->token_capacity, sizeof *b->mask));
    HY3_TRY_DONE(hy3_alloc(&b->starts, (size_t)samples + 1, sizeof *b->starts));
    HY3_TRY_DONE(hy3_alloc(&b->samples, (size_t)samples, sizeof *b->samples));
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
    hy3_free(batch->starts);
    hy3_free(batch->samples);
    hy3_free(batch);
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
    int64_t begin = step % steps * hy3_batches_global(batches) +
                    (micro * batches->ranks + batches->rank) * batches->batch;
    int64_t end = begin + batches->batch;

    if (end > batches->count)
        end = batches->count;
    out->T = out->S = out->longest = out->labels = out->starts[0] = 0;
    out->step = step;
    for (int64_t place = begin; place < end; place++)
        HY3_TRY(append(batches->dataset, hy3_batches_sample(batches, epoch, place), out));
    return HY3_OK;
}
