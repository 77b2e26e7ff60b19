/* SPDX-License-Identifier: Apache-2.0 */
/* run_data.c - from the token files to the batches of each step. */
#include "train/run_data.h"

#include "app/datasets.h"
#include "base/log.h"
#include "base/plural.h"
#include "comm/agree.h"

#include <math.h>

static hy3_status open_datasets(const struct hy3_config *c, MPI_Comm comm, int64_t vocab,
                                struct hy3_run_data *d)
{
    int64_t dummies = c->max_samples > 0 ? c->max_samples : 1000;

    if (c->use_dummy_data)
        return hy3_agree(
            comm,
            hy3_dataset_dummy(dummies, c->max_seq_length, vocab, (uint64_t)c->seed, &d->train_set),
            "creating dummy data");
    HY3_TRY(hy3_datasets_open(comm, c, "train", true, &d->train_set, NULL));
    if (c->eval_data_file.count > 0)
        HY3_TRY(hy3_datasets_open(comm, c, "eval", true, &d->eval_set, NULL));
    hy3_dataset_set_vocab(d->train_set, vocab);
    if (d->eval_set)
        hy3_dataset_set_vocab(d->eval_set, vocab);
    return HY3_OK;
}

/* Samples that val_size, a fraction or a number, holds out for evaluation: at least one where it is
 * asked for. */
static int64_t held_out(const struct hy3_config *c, int64_t samples)
{
    double wanted = c->val_size < 1 ? c->val_size * (double)samples : c->val_size;

    if (c->val_size > 0 && wanted < 1)
        return 1;
    return (int64_t)(wanted + 0.5);
}

/* Splits the samples into training and evaluation: at random, since files are often sorted; with
 * disable_shuffling the last ones are for evaluation. */
static hy3_status plan_batches(const struct hy3_config *c, const struct hy3_group *world,
                               struct hy3_run_data *d)
{
    int64_t samples = hy3_dataset_count(d->train_set), held = held_out(c, samples);

    d->train = (struct hy3_batches){.dataset = d->train_set,
                                    .count = samples - held,
                                    .split_drawn = held > 0 && !c->disable_shuffling,
                                    .batch = c->per_device_train_batch_size,
                                    .accumulation = c->gradient_accumulation_steps,
                                    .rank = world->rank,
                                    .ranks = world->size,
                                    .shuffle = !c->disable_shuffling,
                                    .seed = (uint64_t)c->seed};
    d->eval = d->train;
    d->eval.accumulation = 1;
    d->eval.shuffle = false;
    d->eval.dataset = d->eval_set ? d->eval_set : held > 0 ? d->train_set : NULL;
    d->eval.first = d->eval_set ? 0 : samples - held;
    d->eval.split_drawn = d->train.split_drawn && !d->eval_set;
    d->eval.count = d->eval_set ? hy3_dataset_count(d->eval_set) : held;
    if (d->train.count < 1)
        HY3_FAIL(HY3_EUSAGE, "val_size holds out all %lld sample%s; nothing is left to train on",
                 (long long)samples, hy3_s(samples));
    HY3_TRY(hy3_batch_create(&d->train, &d->batch));
    return d->eval.dataset ? hy3_batch_create(&d->eval, &d->eval_batch) : HY3_OK;
}

hy3_status hy3_run_data_open(const struct hy3_config *config, const struct hy3_group *world,
                             int64_t vocab, struct hy3_run_data *data)
{
    struct hy3_run_data *d = data;

    HY3_TRY(open_datasets(config, world->comm, vocab, d));
    HY3_AGREE(world->comm, plan_batches(config, world, d), "planning the batches");
    if (d->eval.dataset && !d->eval_set)
        hy3_log(HY3_LOG_INFO, "eval: %lld of %lld samples, held out of the training data",
                (long long)d->eval.count, (long long)hy3_dataset_count(d->train_set));
    d->longest = hy3_dataset_longest(d->train_set);
    if (d->eval_set && hy3_dataset_longest(d->eval_set) > d->longest)
        d->longest = hy3_dataset_longest(d->eval_set);
    d->steps_per_epoch = hy3_batches_steps_per_epoch(&d->train);
    d->steps = config->max_steps > 0
                   ? config->max_steps
                   : (int64_t)ceil(config->num_train_epochs * (double)d->steps_per_epoch);
    return HY3_OK;
}

hy3_status hy3_run_data_publish(const struct hy3_group *world, struct hy3_run_data *data)
{
    HY3_TRY(hy3_dataset_publish(world->comm, data->train_set));
    return data->eval_set ? hy3_dataset_publish(world->comm, data->eval_set) : HY3_OK;
}

void hy3_run_data_close(struct hy3_run_data *data)
{
    hy3_batch_free(data->batch);
    hy3_batch_free(data->eval_batch);
    hy3_dataset_close(data->train_set);
    hy3_dataset_close(data->eval_set);
}
