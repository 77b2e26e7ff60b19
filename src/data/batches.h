/* SPDX-License-Identifier: Apache-2.0 */
/* batches.h - which samples a step consists of, and the micro-batches of a rank.
 *
 * What counts is an item: a sample, or with packing a row of samples (packing.h). An epoch is a
 * permutation of the items that depends on (seed, epoch) alone; the rows are packed once, from the
 * samples in the order of epoch 0. Global step s of an epoch takes the items at [s G, min((s+1) G,
 * n)) of it, G = batch * accumulation * ranks, whatever the layout. An epoch has ceil(n / G) steps;
 * the last may be partial. Which rank and micro-batch takes which item of a step is dealt by their
 * costs (deal.h): a sample of n tokens costs n (n + attention_length). A sequence group counts as
 * one rank here, whose micro-batches its members share (cut.h). */
#pragma once

#include "data/batch.h"
#include "data/dataset.h"
#include "data/packing.h"

struct hy3_batches {
    const struct hy3_dataset *dataset;
    /* Samples [first, first + count) of the dataset, a split for evaluation; drawn: of a
     * permutation of its samples that depends on the seed alone. */
    int64_t first, count;
    bool split_drawn;
    int64_t batch, accumulation; /* per_device_train_batch_size, gradient_accumulation_steps */
    int rank, ranks;
    int part, parts; /* of the sequence group this rank's place, and the ranks; 0: it is alone */
    bool shuffle;
    uint64_t seed;
    /* Tokens of a sample at which its attention costs as much as all else. */
    int64_t attention_length;
    bool keeps_order;                  /* deals items as they come, to compare */
    const struct hy3_packing *packing; /* of these samples; NULL: items are samples */
};

/* Local. Packs the samples into rows of `length` tokens; for batches->packing. The caller owns *out
 * (hy3_packing_free). Errors: HY3_ENOMEM. */
hy3_status hy3_batches_pack(const struct hy3_batches *batches, int64_t length,
                            struct hy3_packing **out);

/* Samples, or rows. */
int64_t hy3_batches_items(const struct hy3_batches *batches);

/* Items of a full step: G above. */
int64_t hy3_batches_global(const struct hy3_batches *batches);
int64_t hy3_batches_steps_per_epoch(const struct hy3_batches *batches);

/* Dataset index of the sample at position `place` of epoch `epoch`, without packing. */
int64_t hy3_batches_sample(const struct hy3_batches *batches, int64_t epoch, int64_t place);

/* Local. Buffers for micro-batches of at most `batch` items and their longest possible T, for these
 * batches alone. */
hy3_status hy3_batch_create(const struct hy3_batches *batches, struct hy3_batch **out);
void hy3_batch_free(struct hy3_batch *batch);

/* Local. Fills micro-batch `micro` of step `step` (from 0, over all epochs) of this rank; empty at
 * an epoch's end. */
hy3_status hy3_batches_load(const struct hy3_batches *batches, int64_t step, int64_t micro,
                            struct hy3_batch *out);

/* How evenly the ranks are loaded: sums over micro-batches, of `items` items of epoch 0. */
struct hy3_balance {
    int64_t items;
    double mean, in_order, dealt; /* as in struct hy3_deal */
};

/* Local. Looks at steps all over epoch 0, in all some 65536 items, or at one step. */
void hy3_batches_balance(const struct hy3_batches *batches, struct hy3_batch *batch,
                         struct hy3_balance *out);
