/* SPDX-License-Identifier: Apache-2.0 */
/* topology.c - the layout of the ranks changes nothing but the order of sums: one table of loss,
 * gradient norm and update against one rank, and a bound on each column. */
#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "ckpt/hf/init.h"
#include "comm/comm.h"
#include "support/golden.h"
#include "support/training.h"

#include <math.h>

enum { STEPS = 3, ARGS = 20, ARG_MAX = HY3_PATH_MAX + 64 };

/* What is trained. Odd sizes: no width of the model is a multiple of a slice's 64 elements. */
struct task {
    const char *name, *file; /* of what is saved */
    const char *settings[6];
};

static const struct task tasks[] = {
    {"full", "model.safetensors", {"finetuning_type=full"}},
    {"lora",
     "adapter_model.safetensors",
     {"finetuning_type=lora", "lora_target=[\"all\"]", "lora_rank=3", "lora_dropout=0.1"}},
    {"lora 8b",
     "adapter_model.safetensors",
     {"finetuning_type=lora", "lora_target=[\"all\"]", "lora_rank=3", "base_dtype=fp8"}},
    {"attention", "model.safetensors", {"finetuning_type=attention"}},
    {"att. 8b", "model.safetensors", {"finetuning_type=attention", "base_dtype=fp8"}},
};

/* The largest differences from one rank that the table may show. */
static const double loss_bound = 2e-5, norm_bound = 2e-5, update_bound = 1e-3;

static int experts(void)
{
    return hy3_size(MPI_COMM_WORLD) == 7 ? 7 : 24;
}

/* Samples of a step: 24, or the next multiple of the ranks. */
static int global_batch(void)
{
    int size = hy3_size(MPI_COMM_WORLD);

    return (24 + size - 1) / size * size;
}

static void make_model(const char *directory)
{
    char path[HY3_PATH_MAX + 32], text[1024];
    struct hy3_init_options options = {.output = directory,
                                       .overwrite = true,
                                       .seed = 5,
                                       .names = HY3_OUTER,
                                       .dtype = HY3_FP32,
                                       .max_shard_bytes = INT64_MAX,
                                       .shape = path,
                                       .tokenizer = hy3_golden("a/tokenizer"),
                                       .tokenizer_size = 1984};

    snprintf(path, sizeof path, "%s.json", directory);
    snprintf(text, sizeof text,
             "{\"hidden_size\": 36, \"intermediate_size\": 52, \"num_hidden_layers\": 3, "
             "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"head_dim\": 12, "
             "\"num_experts\": %d, \"num_experts_per_tok\": 3, \"num_shared_experts\": 1, "
             "\"moe_intermediate_size\": 20, \"first_k_dense_replace\": 1, "
             "\"num_nextn_predict_layers\": 0, \"router_scaling_factor\": 2.826, "
             "\"rope_theta\": 10000.0, \"rms_norm_eps\": 1e-05, \"initializer_range\": 0.1, "
             "\"max_position_embeddings\": 512, \"vocab_size\": 1984}",
             experts());
    if (hy3_rank(MPI_COMM_WORLD) == 0)
        assert_ok(hy3_output_replace(path, text, strlen(text)));
    hy3_barrier(MPI_COMM_WORLD, "testing");
    assert_ok(hy3_init_write(MPI_COMM_WORLD, &options));
}

/* How the ranks share the work. */
struct layout {
    int group, stage;
    bool offload;
    int sequence; /* ranks that share samples */
};

/* Every combination with HY3_LONG, but for offload where samples are shared; else two for each
 * expert group, so that all stages occur, and some that share samples. On more than four ranks,
 * which take long on few cores, only the largest group is offloaded too. */
static bool is_run(const struct layout *l)
{
    int size = hy3_size(MPI_COMM_WORLD);

    if (size % l->group != 0 || experts() % l->group != 0 || (l->offload && l->stage != 3) ||
        size % l->sequence != 0 || (l->offload && l->sequence > 1))
        return false;
    if (getenv("HY3_LONG"))
        return true;
    if (l->sequence > 1)
        return l->stage == (l->group + l->sequence) % 4 &&
               (l->group * l->sequence == size || l->group * l->sequence == size * size);
    return l->offload ? size <= 4 || l->group == size : l->stage == l->group % 3;
}

/* Trains on `comm`. */
static void train(MPI_Comm comm, const char *out, const char *model, const struct task *task,
                  const struct layout *l)
{
    static char texts[ARGS][ARG_MAX];
    const char *all[HY3_TEST_SETTINGS] = {0};
    int count = 0, batch = global_batch() / hy3_size(comm) * l->sequence;
    int micros = batch <= 4 ? 1 : batch % 4 == 0 ? 4 : 3;

#define ARG(...) snprintf(texts[count], ARG_MAX, __VA_ARGS__), all[count] = texts[count], count++
    ARG("model_name_or_path=%s", model);
    ARG("train_data_file=%s", hy3_golden("a/dataset.jsonl"));
    ARG("cache_dir=%s.cache", model);
    ARG("bf16=false");
    ARG("max_seq_length=48");
    assert_int_equal(batch % micros, 0);
    ARG("per_device_train_batch_size=%d", batch / micros);
    ARG("gradient_accumulation_steps=%d", micros);
    ARG("learning_rate=1e-3");
    ARG("weight_decay=0.1");
    ARG("lr_scheduler_type=constant");
    ARG("max_steps=%d", STEPS);
    ARG("expert_parallel_size=%d", l->group);
    ARG("sequence_parallel_size=%d", l->sequence);
    ARG("zero_stage=%d", l->stage);
    ARG("offload=%s", l->offload ? "full" : "none");
    ARG("stage3_param_persistence_threshold=0");
    ARG("expert_capacity=%s", l->stage % 2 == 0 ? "0.4" : "1.25");
#undef ARG
    for (int i = 0; i < 6 && task->settings[i]; i++)
        all[count++] = task->settings[i];
    hy3_test_train(comm, out, all);
}

struct differences {
    double loss, norm, update;
};

static double mean_difference(const char *a, const char *b, const char *file)
{
    char path[HY3_PATH_MAX + 64];
    struct hy3_shard *one, *other;
    double sum = 0, count = 0;

    snprintf(path, sizeof path, "%s/%s", a, file);
    assert_ok(hy3_shard_open(path, &one));
    snprintf(path, sizeof path, "%s/%s", b, file);
    assert_ok(hy3_shard_open(path, &other));
    for (int i = 0; i < hy3_shard_count(one); i++) {
        const char *name = hy3_shard_tensor(one, i)->name;
        int64_t n, m;
        float *x = hy3_golden_floats(one, name, &n), *y = hy3_golden_floats(other, name, &m);

        assert_int_equal(n, m);
        sum += hy3_mean_difference(x, y, n) * (double)n;
        count += (double)n;
        hy3_free(x);
        hy3_free(y);
    }
    assert_true(count > 1000);
    hy3_shard_close(one);
    hy3_shard_close(other);
    return sum / count;
}

/* The update is compared by the mean over the weights, in shares of what Adam can move a weight by
 * in these steps. */
static struct differences compare(const char *alone, const char *together, const char *file)
{
    struct differences d = {0};

    for (size_t step = 0; step < STEPS; step++) {
        json_t *a = hy3_test_logged(alone, step), *b = hy3_test_logged(together, step);

        d.loss = fmax(d.loss, fabs(hy3_json_number(a, "loss") - hy3_json_number(b, "loss")));
        d.norm = fmax(d.norm,
                      fabs(hy3_json_number(b, "grad_norm") / hy3_json_number(a, "grad_norm") - 1));
        json_decref(a);
        json_decref(b);
    }
    d.update = mean_difference(alone, together, file) / (STEPS * 1e-3);
    return d;
}

static bool check_layout(const char *alone, const char *together, const char *model,
                         const struct task *task, const struct layout *l)
{
    struct differences d = {0};
    bool good = true;

    train(MPI_COMM_WORLD, together, model, task, l);
    if (hy3_rank(MPI_COMM_WORLD) == 0) {
        d = compare(alone, together, task->file);
        good = d.loss <= loss_bound && d.norm <= norm_bound && d.update <= update_bound;
        printf("# %-9s %5d %7d %6d %4d %-7s %9.1e %9.1e %9.1e%s\n", task->name,
               hy3_size(MPI_COMM_WORLD), l->group, l->sequence, l->stage,
               l->offload ? "full" : "none", d.loss, d.norm, d.update,
               good ? "" : "  <-- above the bound");
    }
    return good;
}

static void layouts_agree_with_one_rank(void **state)
{
    char model[HY3_PATH_MAX], alone[HY3_PATH_MAX], together[HY3_PATH_MAX];
    const struct layout one = {.group = 1, .sequence = 1};
    bool good = true;
    int rows = 0;

    (void)state;
    snprintf(model, sizeof model, "%s/model", hy3_test_directory());
    snprintf(alone, sizeof alone, "%s/alone", hy3_test_directory());
    snprintf(together, sizeof together, "%s/together", hy3_test_directory());
    make_model(model);
    if (hy3_rank(MPI_COMM_WORLD) == 0)
        printf("# %-9s %5s %7s %6s %4s %-7s %9s %9s %9s\n# bound %36s %9.1e %9.1e %9.1e\n", "task",
               "ranks", "experts", "shared", "zero", "offload", "loss", "norm", "update", "",
               loss_bound, norm_bound, update_bound);
    for (size_t t = 0; t < sizeof tasks / sizeof *tasks; t++) {
        if (hy3_rank(MPI_COMM_WORLD) == 0)
            train(MPI_COMM_SELF, alone, model, &tasks[t], &one);
        hy3_barrier(MPI_COMM_WORLD, "testing");
        for (int i = 0; i < 8 * 8 * 5; i++) {
            int kind = i % 5;
            struct layout l = {i / 40 + 1, kind < 4 ? kind : 3, kind == 4, i / 5 % 8 + 1};

            if (!is_run(&l))
                continue;
            good = check_layout(alone, together, model, &tasks[t], &l) && good;
            rows++;
        }
    }
    assert_all(rows > 0 && good);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(layouts_agree_with_one_rank)};

    return hy3_test_run(&argc, &argv, tests, 1);
}
