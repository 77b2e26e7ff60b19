/* SPDX-License-Identifier: Apache-2.0 */
/* packing.c - the same samples, one to an item or packed into rows, each on one rank or shared by
 * several: the same loss, the same gradients, the same evaluation. */
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

/* How the ranks share the work. */
struct layout {
    int group, sequence, micros, length;
};

static void train(const char *out, const struct layout *l, const char *const *task,
                  const char *const *way)
{
    static char texts[20][ARG_MAX];
    const char *all[HY3_TEST_SETTINGS] = {0};
    int count = 0, items = ITEMS / l->micros * l->sequence / hy3_size(MPI_COMM_WORLD);

#define ARG(...) snprintf(texts[count], ARG_MAX, __VA_ARGS__), all[count] = texts[count], count++
    ARG("model_name_or_path=%s", hy3_golden("a/inner"));
    ARG("tokenizer_name_or_path=%s", hy3_golden("a/tokenizer"));
    ARG("train_data_file=%s", hy3_golden("a/dataset.jsonl"));
    ARG("eval_data_file=%s", hy3_golden("a/dataset.jsonl"));
    ARG("cache_dir=%s/cache", hy3_test_directory());
    ARG("max_seq_length=%d", l->length);
    ARG("per_device_train_batch_size=%d", items);
    ARG("gradient_accumulation_steps=%d", l->micros);
    ARG("expert_parallel_size=%d", l->group);
    ARG("sequence_parallel_size=%d", l->sequence);
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
    struct layout l = {.sequence = 1, .micros = 2, .length = 150};

    (void)state;
    snprintf(apart, sizeof apart, "%s/apart", hy3_test_directory());
    snprintf(packed, sizeof packed, "%s/packed", hy3_test_directory());
    for (size_t t = 0; t < sizeof tasks / sizeof *tasks; t++) {
        for (l.group = 1; l.group <= size; l.group += size > 1 ? size - 1 : 1) {
            if (!is_run(t, l.group))
                continue;
            train(apart, &l, tasks[t], ways[0]);
            for (size_t w = 1; w < sizeof ways / sizeof *ways; w++) {
                if (!getenv("HY3_LONG") && w % 2 != t % 2)
                    continue;
                train(packed, &l, tasks[t], ways[w]);
                if (hy3_rank(MPI_COMM_WORLD) == 0)
                    compare(apart, packed);
                hy3_barrier(MPI_COMM_WORLD, "testing");
            }
        }
    }
}

/* Whole samples and rows of them, then micro-batches of one or two tokens, of which most ranks have
 * none. */
static void shared_samples_learn_what_they_learn_on_one_rank(void **state)
{
    static const char *const cut[] = {"truncation_strategy=left", NULL};
    char apart[HY3_PATH_MAX], shared[HY3_PATH_MAX];
    const int size = hy3_size(MPI_COMM_WORLD);

    (void)state;
    if (size == 1)
        skip();
    snprintf(apart, sizeof apart, "%s/apart", hy3_test_directory());
    snprintf(shared, sizeof shared, "%s/shared", hy3_test_directory());
    for (size_t t = 0; t < sizeof tasks / sizeof *tasks; t++) {
        for (int kind = 0; kind < 2; kind++) {
            bool is_short = kind == 1;
            const char *const *way = is_short ? cut : ways[1 - t];
            struct layout l = {.group = t == 0 ? 1 : size,
                               .sequence = 1,
                               .micros = is_short ? ITEMS / size : 2,
                               .length = is_short ? 2 : 150};

            train(apart, &l, tasks[t], is_short ? cut : ways[0]);
            for (l.sequence = 2; l.sequence <= size; l.sequence *= 2) {
                l.micros = is_short ? ITEMS * l.sequence / size : 2;
                train(shared, &l, tasks[t], way);
                if (hy3_rank(MPI_COMM_WORLD) == 0)
                    hy3_test_same_steps(apart, shared, STEPS);
                hy3_barrier(MPI_COMM_WORLD, "testing");
            }
        }
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(packed_samples_learn_what_they_learn_apart),
        cmocka_unit_test(shared_samples_learn_what_they_learn_on_one_rank),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
