/* SPDX-License-Identifier: Apache-2.0 */
/* golden.c - the network against transformers: forward.safetensors of the golden case, and every
 * gradient.
 *
 * Tolerances are those of golden/README.md. */
#include "support/golden.h"

#include "app/loaded_model.h"
#include "base/memory.h"
#include "comm/comm.h"
#include "engine/generate.h"
#include "engine/pass.h"

#include <math.h>

/* The golden batch without its padding, and what maps it back. */
struct fixture {
    struct hy3_shard *shard;
    struct hy3_batch batch;
    int64_t *row; /* [T] place of token t in the padded [3,38] batch */
    int64_t rows, width;
};

static void load_fixture(struct fixture *f)
{
    int64_t n, T = 0, S = 0, *ids, *labels, *mask;
    struct hy3_batch *b = &f->batch;

    *f = (struct fixture){0};
    assert_ok(hy3_shard_open(hy3_golden("a/forward.safetensors"), &f->shard));
    ids = hy3_golden_ints(f->shard, "input_ids", &n);
    labels = hy3_golden_ints(f->shard, "labels", NULL);
    mask = hy3_golden_ints(f->shard, "attention_mask", NULL);
    f->rows = hy3_shard_find(f->shard, "input_ids")->shape[0];
    f->width = n / f->rows;
    assert_ok(hy3_alloc(&b->ids, (size_t)n, sizeof *b->ids));
    assert_ok(hy3_alloc(&b->positions, (size_t)n, sizeof *b->positions));
    assert_ok(hy3_alloc(&b->targets, (size_t)n, sizeof *b->targets));
    assert_ok(hy3_alloc(&b->starts, (size_t)f->rows + 1, sizeof *b->starts));
    assert_ok(hy3_alloc(&b->samples, (size_t)f->rows, sizeof *b->samples));
    assert_ok(hy3_alloc(&f->row, (size_t)n, sizeof *f->row));
    for (int64_t s = 0; s < f->rows; s++) {
        for (int64_t t = 0; t < f->width; t++) {
            int64_t at = s * f->width + t;
            bool learns = t + 1 < f->width && mask[at + 1] && labels[at + 1] >= 0;

            if (!mask[at])
                continue;
            f->row[T] = at;
            b->ids[T] = (int32_t)ids[at];
            b->positions[T] = (int32_t)t;
            b->targets[T] = learns ? (int32_t)labels[at + 1] : -1;
            b->labels += learns;
            T++;
        }
        b->samples[S] = s;
        b->starts[++S] = T;
    }
    b->T = T;
    b->S = S;
    hy3_free(ids);
    hy3_free(labels);
    hy3_free(mask);
}

static void free_fixture(struct fixture *f)
{
    hy3_free(f->batch.ids);
    hy3_free(f->batch.positions);
    hy3_free(f->batch.targets);
    hy3_free(f->batch.starts);
    hy3_free(f->batch.samples);
    hy3_free(f->row);
    hy3_shard_close(f->shard);
}

static void open_network(struct hy3_loaded_model *n, bool bf16, bool checkpointing,
                         const struct fixture *f, struct hy3_pass **pass)
{
    struct hy3_loaded_model_options options = {.directory = hy3_golden("a/inner"),
                                               .device = "cpu",
                                               .expert_parallel_size = 1,
                                               .store = {.dtype = bf16 ? HY3_BF16 : HY3_FP32},
                                               .training = HY3_TRAIN_FULL};
    struct hy3_pass_options pass_options = {.max_tokens = f->batch.T,
                                            .max_samples = f->batch.S,
                                            .backward = true,
                                            .checkpointing = checkpointing};

    assert_ok(hy3_loaded_model_open(MPI_COMM_WORLD, &options, n));
    assert_ok(hy3_loaded_model_load(n, &options));
    assert_ok(hy3_pass_open(n->backend, n->store, &pass_options, pass));
}

/* [T,width] of ours against the padded golden tensor `name`. */
static double difference(const struct fixture *f, const char *name, const float *ours,
                         int64_t width)
{
    float *golden = hy3_golden_floats(f->shard, name, NULL);
    double worst = 0;

    for (int64_t t = 0; t < f->batch.T; t++)
        worst =
            fmax(worst, hy3_max_difference(ours + t * width, golden + f->row[t] * width, width));
    hy3_free(golden);
    return worst;
}

static float *floats(int64_t n)
{
    float *data;

    assert_ok(hy3_alloc(&data, (size_t)n, sizeof *data));
    return data;
}

static void logits_and_losses_equal_the_reference(void **state)
{
    struct fixture f;
    struct hy3_loaded_model n;
    struct hy3_pass *pass;
    struct hy3_pass_result result;
    struct hy3_probe probe = {0};
    json_t *golden = hy3_golden_json("a/forward.json");
    float *logits, *token_loss;

    (void)state;
    load_fixture(&f);
    open_network(&n, false, true, &f, &pass);
    probe.logits = logits = floats(f.batch.T * n.shape.vocab);
    probe.token_loss = token_loss = floats(f.batch.T);
    hy3_pass_probe(pass, &probe);
    assert_ok(hy3_pass_evaluate(pass, &f.batch, &result));
    hy3_assert_within("logits", difference(&f, "logits", logits, n.shape.vocab), 1e-4);
    hy3_assert_within("token loss", difference(&f, "token_loss", token_loss, 1), 1e-4);
    assert_int_equal(result.labels, json_integer_value(json_object_get(golden, "loss_tokens")));
    hy3_assert_within("mean loss",
                      fabs(result.loss_sum / (double)result.labels -
                           json_real_value(json_object_get(golden, "loss_float64"))),
                      5e-6);
    hy3_free(logits);
    hy3_free(token_loss);
    json_decref(golden);
    hy3_pass_close(pass);
    hy3_loaded_model_close(&n);
    free_fixture(&f);
}

static void compare_hidden(const struct fixture *f, const struct hy3_shape *s, int i,
                           const float *before, float *mid, float *out)
{
    int64_t count = f->batch.T * s->hidden;
    char name[64];

    snprintf(name, sizeof name, "hidden.layer%d", i);
    hy3_assert_within(name, difference(f, name, out, s->hidden), 1e-4);
    for (int64_t j = 0; j < count; j++) {
        out[j] -= mid[j];
        mid[j] -= before[j];
    }
    snprintf(name, sizeof name, "hidden.layer%d.attn_out", i);
    hy3_assert_within(name, difference(f, name, mid, s->hidden), 1e-4);
    snprintf(name, sizeof name, "hidden.layer%d.mlp_out", i);
    hy3_assert_within(name, difference(f, name, out, s->hidden), 1e-4);
    for (int64_t j = 0; j < count; j++) /* back to the hidden state, for the next layer */
        out[j] += mid[j] + before[j];
}

static void compare_router(const struct fixture *f, const struct hy3_shape *s, int i,
                           const float *logits, const int32_t *chosen, const float *weights)
{
    char name[64];
    int64_t *golden;

    snprintf(name, sizeof name, "router.%d.logits", i);
    hy3_assert_within(name, difference(f, name, logits, s->experts), 1e-4);
    snprintf(name, sizeof name, "router.%d.topk_weight", i);
    hy3_assert_within(name, difference(f, name, weights, s->top_k), 1e-4);
    snprintf(name, sizeof name, "router.%d.topk_index", i);
    golden = hy3_golden_ints(f->shard, name, NULL);
    for (int64_t t = 0; t < f->batch.T; t++)
        for (int64_t j = 0; j < s->top_k; j++)
            assert_int_equal(chosen[t * s->top_k + j], golden[f->row[t] * s->top_k + j]);
    hy3_free(golden);
}

static void hidden_states_and_routing_equal_the_reference(void **state)
{
    enum { MAX_LAYERS = 8 };
    struct fixture f;
    struct hy3_loaded_model n;
    struct hy3_pass *pass;
    struct hy3_pass_result result;
    struct hy3_probe probe = {0};
    float *mid[MAX_LAYERS], *out[MAX_LAYERS], *logits[MAX_LAYERS], *weights[MAX_LAYERS];
    int32_t *chosen[MAX_LAYERS];
    const struct hy3_shape *s = &n.shape;

    (void)state;
    load_fixture(&f);
    open_network(&n, false, true, &f, &pass);
    assert_true(s->layers <= MAX_LAYERS);
    for (int i = 0; i < s->layers; i++) {
        mid[i] = floats(f.batch.T * s->hidden);
        out[i] = floats(f.batch.T * s->hidden);
        logits[i] = floats(f.batch.T * s->experts);
        weights[i] = floats(f.batch.T * s->top_k);
        chosen[i] = (int32_t *)floats(f.batch.T * s->top_k);
    }
    probe.embed = floats(f.batch.T * s->hidden);
    probe.final_norm = floats(f.batch.T * s->hidden);
    probe.mid = mid;
    probe.out = out;
    probe.router_logits = logits;
    probe.weights = weights;
    probe.chosen = chosen;
    hy3_pass_probe(pass, &probe);
    assert_ok(hy3_pass_evaluate(pass, &f.batch, &result));
    hy3_assert_within("embedding", difference(&f, "hidden.embed", probe.embed, s->hidden), 0);
    hy3_assert_within("final norm",
                      difference(&f, "hidden.final_norm", probe.final_norm, s->hidden), 1e-4);
    for (int i = 0; i < s->layers; i++) {
        compare_hidden(&f, s, i, i == 0 ? probe.embed : out[i - 1], mid[i], out[i]);
        if (hy3_shape_is_moe(s, i))
            compare_router(&f, s, i, logits[i], chosen[i], weights[i]);
        hy3_free(mid[i]);
        hy3_free(logits[i]);
        hy3_free(weights[i]);
        hy3_free(chosen[i]);
    }
    for (int i = 0; i < s->layers; i++)
        hy3_free(out[i]);
    hy3_free(probe.embed);
    hy3_free(probe.final_norm);
    hy3_pass_close(pass);
    hy3_loaded_model_close(&n);
    free_fixture(&f);
}

/* Copies a gradient, divided by the number of labels, to host memory. */
static float *gradient(const struct hy3_loaded_model *n, const struct hy3_param *p, double labels)
{
    float *grad = floats(p->count);

    memcpy(grad, hy3_store_grad(n->store, p), (size_t)p->count * sizeof *grad); /* CPU backend */
    for (int64_t j = 0; j < p->count; j++)
        grad[j] = (float)(grad[j] / labels);
    return grad;
}

static void every_gradient_equals_the_reference(void **state)
{
    struct fixture f;
    struct hy3_loaded_model n;
    struct hy3_pass *pass;
    struct hy3_pass_result result;
    int compared = 0, wanted = 0;

    (void)state;
    load_fixture(&f);
    open_network(&n, false, false, &f, &pass);
    assert_ok(hy3_pass_train(pass, &f.batch, true, &result));
    for (int i = 0; i < n.params->count; i++) {
        const struct hy3_param *p = &n.params->params[i];
        char name[HY3_PARAM_NAME + 8];
        float *ours, *golden, zero = 0;
        double largest = 0;

        if (p->unit < 0)
            continue;
        snprintf(name, sizeof name, "grad.%s", p->name);
        golden = hy3_golden_floats(f.shard, name, NULL);
        ours = gradient(&n, p, (double)result.labels);
        for (int64_t j = 0; j < p->count; j++)
            largest = fmax(largest, hy3_max_difference(golden + j, &zero, 1));
        hy3_assert_within(name, hy3_max_difference(ours, golden, p->count),
                          fmin(5e-6, 5e-5 * largest));
        hy3_free(ours);
        hy3_free(golden);
        compared++;
    }
    for (int i = 0; i < hy3_shard_count(f.shard); i++)
        wanted += strncmp(hy3_shard_tensor(f.shard, i)->name, "grad.", 5) == 0;
    assert_int_equal(compared, wanted);
    hy3_pass_close(pass);
    hy3_loaded_model_close(&n);
    free_fixture(&f);
}

static void checkpointing_gives_the_same_bits(void **state)
{
    for (int bf16 = 0; bf16 < 2; bf16++) {
        struct fixture f;
        struct hy3_loaded_model n[2];
        struct hy3_pass *pass[2];
        struct hy3_pass_result result[2];

        (void)state;
        load_fixture(&f);
        for (int i = 0; i < 2; i++) {
            open_network(&n[i], bf16, i, &f, &pass[i]);
            assert_ok(hy3_pass_train(pass[i], &f.batch, false, &result[i]));
            assert_ok(hy3_pass_train(pass[i], &f.batch, true, &result[i]));
        }
        assert_memory_equal(&result[0].loss_sum, &result[1].loss_sum, sizeof(double));
        for (int j = 0; j < n[0].params->count; j++)
            if (n[0].params->params[j].unit >= 0)
                assert_memory_equal(hy3_store_owned(n[0].store, &n[0].params->params[j]).grad,
                                    hy3_store_owned(n[1].store, &n[1].params->params[j]).grad,
                                    (size_t)n[0].params->params[j].count * sizeof(float));
        for (int i = 0; i < 2; i++) {
            hy3_pass_close(pass[i]);
            hy3_loaded_model_close(&n[i]);
        }
        free_fixture(&f);
    }
}

static void bf16_loss_stays_near_fp32(void **state)
{
    struct fixture f;
    struct hy3_loaded_model n;
    struct hy3_pass *pass;
    struct hy3_pass_result result;
    json_t *golden = hy3_golden_json("a/forward.json");

    (void)state;
    load_fixture(&f);
    open_network(&n, true, true, &f, &pass);
    assert_ok(hy3_pass_evaluate(pass, &f.batch, &result));
    hy3_assert_within("bf16 loss",
                      fabs(result.loss_sum / (double)result.labels -
                           json_real_value(json_object_get(golden, "loss_float64"))),
                      0.02);
    json_decref(golden);
    hy3_pass_close(pass);
    hy3_loaded_model_close(&n);
    free_fixture(&f);
}

/* Feeding a sample token by token must give the logits of the whole forward pass. */
static void cached_generation_equals_the_forward_pass(void **state)
{
    struct fixture f;
    struct hy3_loaded_model n;
    struct hy3_pass *pass;
    struct hy3_generator *generator;
    float *golden;
    const float *logits;

    (void)state;
    load_fixture(&f);
    open_network(&n, false, true, &f, &pass);
    golden = hy3_golden_floats(f.shard, "logits", NULL);
    assert_ok(hy3_generator_open(n.backend, n.store, f.width, &generator));
    for (int64_t s = 0; s < f.batch.S; s++) {
        int64_t first = f.batch.starts[s], length = f.batch.starts[s + 1] - first, at = 5;

        hy3_generator_reset(generator);
        assert_ok(hy3_generator_feed(generator, f.batch.ids + first, at, &logits));
        for (;; at++) {
            hy3_assert_within("cached logits",
                              hy3_max_difference(logits,
                                                 golden + f.row[first + at - 1] * n.shape.vocab,
                                                 n.shape.vocab),
                              1e-4);
            if (at == length)
                break;
            assert_ok(hy3_generator_feed(generator, f.batch.ids + first + at, 1, &logits));
        }
    }
    assert_fails(HY3_EUSAGE, "room for",
                 hy3_generator_feed(generator, f.batch.ids, f.width, &logits));
    hy3_generator_close(generator);
    hy3_free(golden);
    hy3_pass_close(pass);
    hy3_loaded_model_close(&n);
    free_fixture(&f);
}

/* A rank whose share of a step is empty takes part all the same. */
static void an_empty_micro_batch_adds_nothing(void **state)
{
    struct fixture f;
    struct hy3_loaded_model n;
    struct hy3_pass *pass;
    struct hy3_pass_result result;
    int64_t start = 0;
    struct hy3_batch empty = {.starts = &start};

    (void)state;
    load_fixture(&f);
    open_network(&n, false, true, &f, &pass);
    assert_ok(hy3_pass_train(pass, &empty, true, &result));
    assert_int_equal(result.labels, 0);
    assert_true(result.loss_sum == 0);
    for (int i = 0; i < n.params->count; i++)
        for (int64_t j = 0; n.params->params[i].unit >= 0 && j < n.params->params[i].count; j++)
            assert_true(hy3_store_owned(n.store, &n.params->params[i]).grad[j] == 0);
    hy3_pass_close(pass);
    hy3_loaded_model_close(&n);
    free_fixture(&f);
}

static void a_non_finite_loss_names_sample_and_layer(void **state)
{
    struct fixture f;
    struct hy3_loaded_model n;
    struct hy3_pass *pass;
    struct hy3_pass_result result;
    const struct hy3_param *param;
    float nan = NAN;

    (void)state;
    load_fixture(&f);
    open_network(&n, false, true, &f, &pass);
    param = hy3_params_find(n.params, HY3_P_O, 1);
    assert_ok(hy3_store_put(n.store, param, (struct hy3_span){3, 1}, &nan, HY3_FP32));
    assert_ok(hy3_pass_train(pass, &f.batch, true, &result));
    assert_int_equal(result.bad_sample, 0);
    assert_int_equal(result.bad_layer, 1);
    hy3_pass_close(pass);
    hy3_loaded_model_close(&n);
    free_fixture(&f);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_and_losses_equal_the_reference),
        cmocka_unit_test(hidden_states_and_routing_equal_the_reference),
        cmocka_unit_test(every_gradient_equals_the_reference),
        cmocka_unit_test(checkpointing_gives_the_same_bits),
        cmocka_unit_test(bf16_loss_stays_near_fp32),
        cmocka_unit_test(cached_generation_equals_the_forward_pass),
        cmocka_unit_test(an_empty_micro_batch_adds_nothing),
        cmocka_unit_test(a_non_finite_loss_names_sample_and_layer),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
