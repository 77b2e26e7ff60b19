/* SPDX-License-Identifier: Apache-2.0 */
/* weights.c - an answer of weight n is learned as n copies of it are: the same loss, gradients and
 * evaluation, however the samples are divided; and such a run continues bit for bit. */
#include "base/file.h"
#include "base/output.h"
#include "comm/comm.h"
#include "support/golden.h"
#include "support/training.h"

#include <math.h>

enum { SAMPLES = 8, ITEMS = 32, STEPS = 2, ARG_MAX = HY3_PATH_MAX + 64 };

/* Of the samples, and how often a sample is written where it has none. */
static const int weights[SAMPLES] = {1, 2, 1, 3, 0, 1, 2, 4};

static const char *in(const char *name)
{
    static char paths[4][HY3_PATH_MAX];
    static int next;
    char *path = paths[next++ % 4];

    snprintf(path, HY3_PATH_MAX, "%s/%s", hy3_test_directory(), name);
    return path;
}

/* Rank 0. scale > 0: each sample once, with `scale` times its weight; else as many copies of it. */
static void write_samples(const char *path, double scale)
{
    static char text[ITEMS * 400];
    size_t used = 0;

    for (int i = 0; i < SAMPLES; i++) {
        char weight[40] = "";

        if (scale > 0)
            snprintf(weight, sizeof weight, ",\"loss_weight\":%g", scale * weights[i]);
        for (int copy = 0; copy < (scale > 0 ? 1 : weights[i]); copy++)
            used += (size_t)snprintf(
                text + used, sizeof text - used,
                "{\"messages\":[{\"role\":\"user\",\"content\":\"How far is harbour %d?\"},"
                "{\"role\":\"assistant\",\"content\":\"It lies %d miles %s.\"%s}]}\n",
                i, i * i, i % 3 == 0 ? "to the north, behind the cape" : "south", weight);
    }
    assert_ok(hy3_output_replace(path, text, used));
}

static void train(const char *out, const char *data, bool packing, int group, const char *resume)
{
    static char texts[24][ARG_MAX];
    const char *all[HY3_TEST_SETTINGS] = {0};
    int count = 0;

#define ARG(...) snprintf(texts[count], ARG_MAX, __VA_ARGS__), all[count] = texts[count], count++
    ARG("model_name_or_path=%s", hy3_golden("a/inner"));
    ARG("tokenizer_name_or_path=%s", hy3_golden("a/tokenizer"));
    ARG("train_data_file=%s.jsonl", in(data));
    ARG("eval_data_file=%s.jsonl", in(data));
    ARG("cache_dir=%s.cache", in(data));
    ARG("max_seq_length=100");
    ARG("packing=%s", packing ? "true" : "false");
    ARG("per_device_train_batch_size=%d", ITEMS / 2 / hy3_size(MPI_COMM_WORLD));
    ARG("gradient_accumulation_steps=2");
    ARG("expert_parallel_size=%d", group);
    ARG("learning_rate=1e-4");
    ARG("lr_scheduler_type=constant");
    ARG("bf16=false");
    ARG("max_steps=%d", STEPS);
    ARG("save_steps=1");
    ARG("eval_steps=1");
    if (resume)
        ARG("resume_from_checkpoint=%s/checkpoint-1", in(resume));
#undef ARG
    hy3_test_train(MPI_COMM_WORLD, in(out), all);
}

static void a_weight_of_n_is_n_copies(void **state)
{
    const int size = hy3_size(MPI_COMM_WORLD);
    static const char *const scaled[] = {"weighted", "scaled"};

    (void)state;
    (void)hy3_test_directory(); /* collective when it is made */
    if (hy3_rank(MPI_COMM_WORLD) == 0) {
        write_samples(in("copies.jsonl"), 0);
        write_samples(in("weighted.jsonl"), 1);
        write_samples(in("scaled.jsonl"), 0.125); /* the mean is divided by the weights */
    }
    hy3_barrier(MPI_COMM_WORLD, "testing");
    train("of-copies", "copies", false, 1, NULL);
    for (int way = 0; way < 2; way++) {
        train("of-weights", scaled[way], way == 1, way == 1 ? size : 1, NULL);
        if (hy3_rank(MPI_COMM_WORLD) == 0)
            hy3_test_same_steps(in("of-copies"), in("of-weights"), STEPS);
        hy3_barrier(MPI_COMM_WORLD, "testing");
    }
}

static void a_weighted_run_continues_bit_for_bit(void **state)
{
    char *one, *two;
    size_t size, other;

    (void)state;
    train("whole", "weighted", false, 1, NULL);
    train("rest", "weighted", false, 1, "whole");
    if (hy3_rank(MPI_COMM_WORLD) == 0) {
        assert_ok(hy3_file_read(in("whole/model.safetensors"), 1 << 30, &one, &size));
        assert_ok(hy3_file_read(in("rest/model.safetensors"), 1 << 30, &two, &other));
        assert_int_equal(size, other);
        assert_memory_equal(one, two, size);
        free(one);
        free(two);
    }
    hy3_barrier(MPI_COMM_WORLD, "testing");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_weight_of_n_is_n_copies),
        cmocka_unit_test(a_weighted_run_continues_bit_for_bit),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
