/* SPDX-License-Identifier: Apache-2.0 */
/* packing.c - the same samples, one to an item or packed into rows: the same loss, the same
 * gradients, the same evaluation. */
#include "base/file.h"
#include "comm/comm.h"
#include "support/golden.h"
#include "support/training.h"

#include <math.h>

enum { ITEMS = 32, STEPS = 2, ARG_MAX = HY3_PATH_MAX + 64 };

/* Every step is an epoch: all 30 samples, in 30 items or in fewer rows. */
static const char *const ways[][4] = {
    {"packing=false"},
    {"packing=true"}, /* rows of max_seq_length */
    {"packing=true", "packing_length=300"},
};

static const char *const tasks[][4] = {
    {"finetuning_type=full"},
    {"finetuning_type=lora", "lora_rank=4", "lora_dropout=0.2", "lora_target=[\"all\"]"},
};

static void train(const char *out, int group, const char *const *task, const char *const *way)
{
    static char texts[16][ARG_MAX];
    const char *all[HY3_TEST_SETTINGS] = {0};
    int count = 0;

#define ARG(...) snprintf(texts[count], ARG_MAX, __VA_ARGS__), all[count] = texts[count], count++
    ARG("model_name_or_path=%s", hy3_golden("a/inner"));
    ARG("tokenizer_name_or_path=%s", hy3_golden("a/tokenizer"));
    ARG("train_data_file=%s", hy3_golden("a/dataset.jsonl"));
    ARG("eval_data_file=%s", hy3_golden("a/dataset.jsonl"));
    ARG("cache_dir=%s/cache", hy3_test_directory());
    ARG("max_seq_length=150");
    ARG("per_device_train_batch_size=%d", ITEMS / 2 / hy3_size(MPI_COMM_WORLD));
    ARG("gradient_accumulation_steps=2");
    ARG("expert_parallel_size=%d", group);
    ARG("learning_rate=1e-4");
    ARG("lr_scheduler_type=constant");
    ARG("bf16=false");
    ARG("max_grad_norm=0");
    ARG("max_steps=%d", STEPS);
    ARG("save_steps=1");
    ARG("eval_steps=1");
#undef ARG
    for (int i = 0; i < 4 && task[i]; i++)
        all[count++] = task[i];
    for (int i = 0; i < 4 && way[i]; i++)
        all[count++] = way[i];
    hy3_test_train(MPI_COMM_WORLD, out, all);
}

static void compare(const char *apart, const char *packed)
{
    for (size_t step = 0; step < STEPS; step++) {
        json_t *a = hy3_test_logged(apart, step), *b = hy3_test_logged(packed, step);

        assert_true(hy3_json_number(a, "num_tokens") == hy3_json_number(b, "num_tokens"));
        json_decref(a);
        json_decref(b);
    }
    hy3_test_same_steps(apart, packed, STEPS);
}

/* All with HY3_LONG; else the full task with whole experts, the adapter with experts divided. */
static bool is_run(size_t task, int group)
{
    return getenv("HY3_LONG") || (task == 0) == (group == 1) || hy3_size(MPI_COMM_WORLD) == 1;
}

static void packed_samples_learn_what_they_learn_apart(void **state)
{
    char apart[HY3_PATH_MAX], packed[HY3_PATH_MAX];
    const int size = hy3_size(MPI_COMM_WORLD);

    (void)state;
    snprintf(apart, sizeof apart, "%s/apart", hy3_test_directory());
    snprintf(packed, sizeof packed, "%s/packed", hy3_test_directory());
    for (size_t t = 0; t < sizeof tasks / sizeof *tasks; t++) {
        for (int group = 1; group <= size; group += size > 1 ? size - 1 : 1) {
            if (!is_run(t, group))
                continue;
            train(apart, group, tasks[t], ways[0]);
            for (size_t w = 1; w < sizeof ways / sizeof *ways; w++) {
                if (!getenv("HY3_LONG") && w % 2 != t % 2)
                    continue;
                train(packed, group, tasks[t], ways[w]);
                if (hy3_rank(MPI_COMM_WORLD) == 0)
                    compare(apart, packed);
                hy3_barrier(MPI_COMM_WORLD, "testing");
            }
        }
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packed_samples_learn_what_they_learn_apart),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
