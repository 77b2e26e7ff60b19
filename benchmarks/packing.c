/* SPDX-License-Identifier: Apache-2.0 */
/* packing.c - samples of 32 to 512 tokens, trained in four ways that take turns step by step:
 * padded to the longest, each as long as it is in the order they have, the same dealt, and packed
 * into rows. Prints the rate of each in tokens of samples per second, and the ratios.
 *
 *   mpiexec -n 2 packing MODEL_DIR [ROUNDS] */
#include "app/loaded_model.h"
#include "base/log.h"
#include "comm/comm.h"
#include "comm/end.h"
#include "comm/launch.h"
#include "engine/pass.h"

enum { SAMPLES = 2048, SHORTEST = 32, LONGEST = 512, BATCH = 4, MICROS = 2, SEED = 1 };

enum { PADDED, IN_ORDER, DEALT, PACKED, WAYS };

static const char *const names[WAYS] = {"padded", "in order", "dealt", "packed"};

struct way {
    struct hy3_batches batches;
    struct hy3_batch *batch;
    double seconds, tokens;
};

struct bench {
    struct hy3_loaded_model model;
    struct hy3_dataset *uneven, *padded;
    struct hy3_packing *packing;
    struct hy3_pass *pass;
    struct way ways[WAYS];
};

static hy3_status open_data(struct bench *b)
{
    const struct hy3_group *world = &b->model.layout.world;
    int64_t most = BATCH;

    HY3_TRY(hy3_dataset_dummy(SAMPLES, LONGEST, b->model.shape.vocab, SEED, &b->uneven));
    HY3_TRY(hy3_dataset_dummy(SAMPLES, LONGEST, b->model.shape.vocab, SEED, &b->padded));
    hy3_dataset_vary(b->uneven, SHORTEST);
    for (int i = 0; i < WAYS; i++) {
        struct way *w = &b->ways[i];

        w->batches =
            (struct hy3_batches){.dataset = i == PADDED ? b->padded : b->uneven,
                                 .count = SAMPLES,
                                 .batch = BATCH,
                                 .accumulation = MICROS,
                                 .rank = world->rank,
                                 .ranks = world->size,
                                 .shuffle = true,
                                 .seed = SEED,
                                 .attention_length = hy3_shape_attention_length(&b->model.shape),
                                 .keeps_order = i == IN_ORDER};
        if (i == PACKED) {
            HY3_TRY(hy3_batches_pack(&w->batches, LONGEST, &b->packing));
            w->batches.packing = b->packing;
        }
        HY3_TRY(hy3_batch_create(&w->batches, &w->batch));
        most = w->batch->sample_capacity > most ? w->batch->sample_capacity : most;
    }
    return hy3_pass_open(b->model.backend, b->model.store,
                         &(struct hy3_pass_options){.max_tokens = (int64_t)BATCH * LONGEST,
                                                    .max_samples = most,
                                                    .backward = true,
                                                    .checkpointing = true},
                         &b->pass);
}

/* One step without its update. counted: into the sums of the way. */
static hy3_status run_step(struct bench *b, struct way *w, int64_t step, bool counted)
{
    MPI_Comm comm = b->model.layout.world.comm;
    double begin, tokens = 0;

    hy3_barrier(comm, "measuring");
    begin = hy3_seconds();
    HY3_TRY(hy3_store_zero_grads(b->model.store, hy3_pass_stream(b->pass)));
    for (int64_t micro = 0; micro < MICROS; micro++) {
        struct hy3_pass_result result;

        HY3_TRY(hy3_batches_load(&w->batches, step, micro, w->batch));
        HY3_TRY(hy3_pass_train(b->pass, w->batch, micro == MICROS - 1, &result));
        for (int64_t s = 0; s < w->batch->S; s++)
            tokens += (double)hy3_dataset_length(b->uneven, w->batch->samples[s]);
    }
    hy3_barrier(comm, "measuring");
    if (!counted)
        return HY3_OK;
    hy3_allreduce_real(comm, &tokens, 1, MPI_SUM, "measuring");
    w->seconds += hy3_seconds() - begin;
    w->tokens += tokens;
    return HY3_OK;
}

static hy3_status measure(struct bench *b, int64_t rounds)
{
    for (int64_t round = -1; round < rounds; round++) /* the first is not counted */
        for (int i = 0; i < WAYS; i++)
            HY3_TRY(run_step(b, &b->ways[i], round < 0 ? 0 : round, round >= 0));
    return HY3_OK;
}

static double rate(const struct bench *b, int way)
{
    return b->ways[way].tokens / b->ways[way].seconds;
}

static void print(struct bench *b)
{
    struct way *dealt = &b->ways[DEALT];
    struct hy3_balance balance;

    hy3_batches_balance(&dealt->batches, dealt->batch, &balance);
    for (int i = 0; i < WAYS; i++)
        printf("  %-9s %8.0f tokens/s\n", names[i], rate(b, i));
    printf("  dealt / in order %.2f (by the work of the slowest rank: %.2f)\n",
           rate(b, DEALT) / rate(b, IN_ORDER), balance.in_order / balance.dealt);
    printf("  packed / padded  %.2f (rows %.1f%% full)\n", rate(b, PACKED) / rate(b, PADDED),
           100 * hy3_packing_fill(b->packing));
    printf("  packed / dealt   %.2f\n", rate(b, PACKED) / rate(b, DEALT));
}

static void close_all(struct bench *b)
{
    hy3_pass_close(b->pass);
    for (int i = 0; i < WAYS; i++)
        hy3_batch_free(b->ways[i].batch);
    hy3_packing_free(b->packing);
    hy3_dataset_close(b->uneven);
    hy3_dataset_close(b->padded);
    hy3_loaded_model_close(&b->model);
}

int main(int argc, char **argv)
{
    hy3_status status = HY3_OK;
    static struct bench b;
    struct hy3_loaded_model_options options = {
        .device = "cpu",
        .training = HY3_TRAIN_FULL,
        .store = {.dtype = HY3_BF16, .with_grads = true, .zero_stage = 2}};

    HY3_TRY_DONE(hy3_start(&argc, &argv, "packing"));
    if (argc < 2)
        HY3_FAIL_DONE(HY3_EUSAGE, "usage: packing MODEL_DIR [ROUNDS]");
    options.directory = argv[1];
    HY3_TRY_DONE(hy3_loaded_model_open(MPI_COMM_WORLD, &options, &b.model));
    HY3_TRY_DONE(hy3_loaded_model_load(&b.model, &options));
    HY3_TRY_DONE(open_data(&b));
    HY3_TRY_DONE(measure(&b, argc > 2 ? strtol(argv[2], NULL, 10) : 8));
    if (b.model.layout.world.rank == 0)
        print(&b);
done:
    close_all(&b);
    return hy3_finish(status);
}
