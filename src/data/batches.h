/* SPDX-License-Identifier: Apache-2.0 */
/* batches.h - which samples a step consists of, and the micro-batches of a rank.
 *
 * An epoch is a permutation of the samples that depends on (seed, epoch) alone. Global step s of an
 * epoch takes the samples at [s G, min((s+1) G, n)) of it, G = batch * accumulation * ranks,
 * whatever the layout. The place p in that range belongs to micro-batch p / (batch ranks), then
 * rank p / batch % ranks. An epoch has ceil(n / G) steps; the last may be partial. */
#pragma once

#include "data/dataset.h"

struct hy3_batches {
    const struct hy3_dataset *dataset;
    /* Samples [first, first + count) of the dataset, a split for evaluation; drawn: of a
     * permutation of its samples that depends on the seed alone. */
    int64_t first, count;
    bool split_drawn;
    int64_t batch, accumulation; /* per_device_train_batch_size, gradient_accumulation_steps */
    int rank, ranks;
    bool shuffle;
    uint64_t seed;
};

/* Samples of one micro-batch of one rank, concatenated without padding; host memory. */
struct hy3_batch {
    int64_t T, S;       /* tokens, samples; both may be 0 */
    int64_t longest;    /* tokens of the longest sample */
    int64_t step;       /* of the micro-batch, from 0 */
    int64_t labels;     /* targets that are not -1 */
    int32_t *ids;       /* [T] */
    int32_t *positions; /* [T] position in the sample */
    int32_t *targets; /* [T] the token to predict, -1: none. The last token of a sample has none */
    uint8_t *mask;    /* [T] as read from the dataset; the targets derive from it */
    int64_t *starts;  /* [S+1] */
    int64_t *samples; /* [S] dataset indices */
    int64_t token_capacity, sample_capacity;
};

/* Samples of a full step: G above. */
int64_t hy3_batches_global(const struct hy3_batches *batches);
int64_t hy3_batches_steps_per_epoch(const struct hy3_batches *batches);

/* Dataset index of position `place` of epoch `epoch`. */
int64_t hy3_batches_sample(const struct hy3_batches *batches, int64_t epoch, int64_t place);

/* Local. Buffers for micro-batches of at most `batch` samples and their longest possible T. */
hy3_status hy3_batch_create(const struct hy3_batches *batches, struct hy3_batch **out);
void hy3_batch_free(struct hy3_batch *batch);

/* Local. Fills micro-batch `micro` of step `step` (from 0, over all epochs) of this rank; empty at
 * an epoch's end. */
hy3_status hy3_batches_load(const struct hy3_batches *batches, int64_t step, int64_t micro,
                            struct hy3_batch *out);
