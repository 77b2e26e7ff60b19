/* SPDX-License-Identifier: Apache-2.0 */
/* run_data.c - from the token files to the batches of each step. */
#include "train/run_data.h"

#include "app/datasets.h"
#include "app/module_options.h"
#include "base/log.h"
#include "base/plural.h"
#include "comm/agree.h"

#include <xxhash.h>

static hy3_status open_datasets(const struct hy3_config *c, MPI_Comm comm,
                                const struct hy3_shape *shape, struct hy3_run_data *d)
{
    if (c->use_dummy_data)
        return hy3_agree(comm, hy3_datasets_dummy(c, shape, &d->train_set), "creating dummy data");
    HY3_TRY(hy3_datasets_open(comm, c, "train", true, &d->train_set, NULL));
    if (c->eval_data_file.count > 0 || c->eval_dataset.count > 0)
        HY3_TRY(hy3_datasets_open(comm, c, "eval", true, &d->eval_set, NULL));
    hy3_dataset_set_vocab(d->train_set, shape->vocab);
    if (d->eval_set)
        hy3_dataset_set_vocab(d->eval_set, shape->vocab);
    return HY3_OK;
}

/* The items of training or of evaluation, and a buffer for their micro-batches. */
static hy3_status make_items(const struct hy3_config *c, struct hy3_run_data *d,
                             struct hy3_batches *batches, struct hy3_packing **packing,
                             struct hy3_batch **batch)
{
    int64_t longest = hy3_dataset_longest(batches->dataset);

    if (c->packing) {
        HY3_TRY(hy3_batches_pack(batches, hy3_module_options_item_tokens(c), packing));
        batches->packing = *packing;
        longest = (*packing)->fullest;
    }
    HY3_TRY(hy3_batch_create(batches, batch));
    if (longest > d->longest)
        d->longest = longest;
    if ((*batch)->sample_capacity > d->most_samples)
        d->most_samples = (*batch)->sample_capacity;
    return HY3_OK;
}

static hy3_status plan_batches(const struct hy3_config *c, const struct hy3_group *world,
                               const struct hy3_shape *shape, struct hy3_run_data *d)
{
    HY3_TRY(hy3_datasets_split(c, world, shape, d->train_set, d->eval_set, &d->train, &d->eval));
    HY3_TRY(make_items(c, d, &d->train, &d->packing, &d->batch));
    return d->eval.dataset ? make_items(c, d, &d->eval, &d->eval_packing, &d->eval_batch) : HY3_OK;
}

hy3_status hy3_run_data_open(const struct hy3_config *config, const struct hy3_group *world,
                             const struct hy3_shape *shape, struct hy3_run_data *data)
{
    struct hy3_run_data *d = data;

    HY3_TRY(open_datasets(config, world->comm, shape, d));
    HY3_AGREE(world->comm, plan_batches(config, world, shape, d), "planning the batches");
    if (d->eval.dataset && !d->eval_set)
        hy3_log(HY3_LOG_INFO, "eval: %lld of %lld samples, held out of the training data",
                (long long)d->eval.count, (long long)hy3_dataset_count(d->train_set));
    d->steps_per_epoch = hy3_batches_steps_per_epoch(&d->train);
    d->steps = hy3_module_options_steps(config, d->steps_per_epoch);
    d->schedule_steps = hy3_module_options_schedule_steps(config, d->steps_per_epoch);
    return HY3_OK;
}

static void announce_rows(const char *name, const struct hy3_packing *p)
{
    if (p)
        hy3_log(HY3_LOG_INFO,
                "%s: %lld sample%s packed into %lld row%s of %lld tokens, %.1f%% full", name,
                (long long)p->samples, hy3_s(p->samples), (long long)p->rows, hy3_s(p->rows),
                (long long)p->length, 100 * hy3_packing_fill(p));
}

void hy3_run_data_announce(const struct hy3_run_data *data)
{
    const struct hy3_batches *b = &data->train;
    struct hy3_balance balance;

    announce_rows("train", data->packing);
    announce_rows("eval", data->eval_packing);
    if (b->ranks == 1)
        return;
    hy3_batches_balance(b, data->batch, &balance);
    hy3_log(HY3_LOG_INFO,
            "work of the slowest rank of each micro-batch, of %lld %s: %.3f times the mean in "
            "their order, %.3f as dealt (a sample of n tokens: n + n^2 / %lld)",
            (long long)balance.items, b->packing ? "rows" : "samples",
            balance.in_order / balance.mean, balance.dealt / balance.mean,
            (long long)b->attention_length);
}

uint64_t hy3_run_data_fingerprint(const struct hy3_run_data *data)
{
    const struct hy3_packing *p = data->packing;
    uint64_t sum = hy3_dataset_fingerprint(data->train_set);

    if (!p) /* as checkpoints have it that know no packing */
        return sum;
    sum = XXH3_64bits_withSeed(&p->length, sizeof p->length, sum);
    return XXH3_64bits_withSeed(p->order, (size_t)p->samples * sizeof *p->order, sum);
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
    hy3_packing_free(data->packing);
    hy3_packing_free(data->eval_packing);
    hy3_dataset_close(data->train_set);
    hy3_dataset_close(data->eval_set);
}
