/* SPDX-License-Identifier: Apache-2.0 */
/* narrow.c - how far bf16 is from fp32 on a model of the quick start's shape, and what router
 * weights in fp32 are worth there. */
#include "app/loaded_model.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"
#include "ckpt/hf/init.h"
#include "engine/pass.h"
#include "support/golden.h"

#include <math.h>

enum { SAMPLES = 8, LENGTH = 192, T = SAMPLES * LENGTH, BATCHES = 16, LAYERS = 4, K = 2 };

struct seen {
    float loss[BATCHES][T];
    int32_t chosen[BATCHES][LAYERS][T * K];
};

static char directory[HY3_PATH_MAX];

static void make_model(void)
{
    char shape[HY3_PATH_MAX], tokenizer[HY3_PATH_MAX];
    const struct hy3_init_options options = {.shape = shape,
                                             .tokenizer = tokenizer,
                                             .output = directory,
                                             .seed = 7,
                                             .names = HY3_OUTER,
                                             .dtype = HY3_BF16,
                                             .max_shard_bytes = 5000000000};

    snprintf(shape, sizeof shape, "%s", hy3_golden("../../etc/quickstart/shape.json"));
    snprintf(tokenizer, sizeof tokenizer, "%s", hy3_golden("../../etc/quickstart/tokenizer"));
    snprintf(directory, sizeof directory, "%s/model", hy3_test_directory());
    assert_ok(hy3_init_write(MPI_COMM_WORLD, &options));
}

/* Random tokens, every one a label. */
static void draw_batch(struct hy3_batch *b, int number, int64_t vocab)
{
    static int32_t ids[T], positions[T], targets[T];
    static int64_t starts[SAMPLES + 1], samples[SAMPLES];

    for (int i = 0; i < T; i++) {
        uint32_t word[4];

        hy3_random(3, HY3_RANDOM_WEIGHT, (uint64_t)number, (uint64_t)i, word);
        ids[i] = (int32_t)(word[0] % (uint32_t)vocab);
        targets[i] = (int32_t)(word[1] % (uint32_t)vocab);
        positions[i] = i % LENGTH;
    }
    for (int s = 0; s < SAMPLES; s++) {
        starts[s + 1] = (int64_t)(s + 1) * LENGTH;
        samples[s] = s;
    }
    *b = (struct hy3_batch){.ids = ids,
                            .positions = positions,
                            .targets = targets,
                            .starts = starts,
                            .samples = samples,
                            .T = T,
                            .S = SAMPLES,
                            .labels = T,
                            .longest = LENGTH};
}

/* Gives the router weights lower halves, drawn; then rounds them, as a bf16 store would. */
static void set_routers(struct hy3_store *store, const struct hy3_params *params, bool rounds)
{
    for (int i = 0; i < params->count; i++) {
        const struct hy3_param *p = &params->params[i];
        const struct hy3_span all = {0, p->count};
        float *values;

        if (p->kind != HY3_P_ROUTER)
            continue;
        assert_ok(hy3_alloc(&values, (size_t)p->count, sizeof *values));
        assert_ok(hy3_store_get(store, p, all, values));
        for (int64_t j = 0; j < p->count; j++) {
            uint32_t word[4];

            hy3_random(5, HY3_RANDOM_WEIGHT, (uint64_t)i, (uint64_t)j, word);
            values[j] *= 1 + (hy3_random_uniform(word[0]) - 0.5f) / 128;
            if (rounds)
                values[j] = hy3_float_from_bf16(hy3_bf16_from_float(values[j]));
        }
        assert_ok(hy3_store_put(store, p, all, values, HY3_FP32));
        hy3_free(values);
    }
}

static void look(hy3_dtype dtype, bool rounds, struct seen *out)
{
    struct hy3_loaded_model_options options = {.directory = directory,
                                               .device = "cpu",
                                               .expert_parallel_size = 1,
                                               .store = {.dtype = dtype}};
    const struct hy3_pass_options pass_options = {.max_tokens = T, .max_samples = SAMPLES};
    struct hy3_loaded_model m;
    struct hy3_pass *pass;

    assert_ok(hy3_loaded_model_open(MPI_COMM_WORLD, &options, &m));
    assert_ok(hy3_loaded_model_load(&m, &options));
    assert_true(m.shape.layers == LAYERS && m.shape.top_k == K);
    set_routers(m.store, m.params, rounds);
    assert_ok(hy3_pass_open(m.backend, m.store, &pass_options, &pass));
    for (int i = 0; i < BATCHES; i++) {
        int32_t *chosen[LAYERS];
        struct hy3_probe probe = {.token_loss = out->loss[i], .chosen = chosen};
        struct hy3_pass_result result;
        struct hy3_batch batch;

        for (int l = 0; l < LAYERS; l++)
            chosen[l] = out->chosen[i][l];
        draw_batch(&batch, i, m.shape.vocab);
        hy3_pass_probe(pass, &probe);
        assert_ok(hy3_pass_evaluate(pass, &batch, &result));
    }
    hy3_pass_close(pass);
    hy3_loaded_model_close(&m);
}

/* Mean error of a token's loss. */
static double token_error(const struct seen *is, const struct seen *truth)
{
    double error = 0;

    for (int i = 0; i < BATCHES; i++)
        error += hy3_mean_difference(is->loss[i], truth->loss[i], T) / BATCHES;
    return error;
}

/* Experts that differ, of all that were chosen. */
static double flips(const struct seen *is, const struct seen *truth)
{
    int64_t other = 0;

    for (int i = 0; i < BATCHES; i++)
        for (int l = 1; l < LAYERS; l++)
            for (int j = 0; j < T * K; j++) {
                const int32_t *of = truth->chosen[i][l] + j / K * K, id = is->chosen[i][l][j];

                other += of[0] != id && of[1] != id;
            }
    return (double)other / ((double)BATCHES * (LAYERS - 1) * T * K);
}

static void fp32_router_weights_bring_bf16_nearer(void **state)
{
    static struct seen truth, now, rounded;

    (void)state;
    make_model();
    look(HY3_FP32, false, &truth);
    look(HY3_BF16, false, &now);
    look(HY3_BF16, true, &rounded);
    hy3_assert_within("bf16 token loss, mean", token_error(&now, &truth), 4e-3);
    hy3_assert_within("bf16 share of other experts", flips(&now, &truth), 7e-3);
    hy3_assert_within("the same against rounded router weights",
                      flips(&now, &truth) / flips(&rounded, &truth), 0.95);
    hy3_assert_within("token loss against rounded router weights",
                      token_error(&now, &truth) / token_error(&rounded, &truth), 0.99);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fp32_router_weights_bring_bf16_nearer),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
