/* SPDX-License-Identifier: Apache-2.0 */
/* golden.c - whole training runs against the trajectories of transformers and PEFT, on any number
 * of ranks.
 *
 * The run goes through the configuration, the token file, the weights' reader and writer as a
 * user's does. The samples are put into the reference's order by repeating lines, with
 * disable_shuffling. */
#include "support/golden.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "comm/comm.h"
#include "support/training.h"

#include <math.h>

/* How the run is spread over the ranks. The test runs once for each that the ranks allow. */
struct layout {
    int group; /* of experts, or a larger one of ZeRO; must divide the ranks */
    /* on so many ranks only; 0: on any; LONG: on any, with HY3_LONG (`make check-long`) */
    int ranks;
    const char *settings[8];
};

enum { LONG = -1 };

#define GPU     "device=cuda"
#define DIVIDED "stage3_param_persistence_threshold=0"
/* clang-format off */
static const struct layout layouts[] = {
    {1, 0, {"expert_parallel_size=1", "zero_stage=0"}},
    {1, LONG, {"expert_parallel_size=1", "zero_stage=1"}},
    {1, LONG, {"expert_parallel_size=1", "zero_stage=2"}},
    {1, LONG, {"expert_parallel_size=1", "zero_stage=3", DIVIDED}},
    {1, 0, {"expert_parallel_size=1", "zero_stage=3", DIVIDED, "offload=full"}},
    {1, 0, {"expert_parallel_size=1", "zero_stage=3", DIVIDED, "offload=full", "offload_dir=/tmp"}},
    {2, 0, {"expert_parallel_size=2", "zero_stage=0"}},
    {2, 0, {"expert_parallel_size=2", "zero_stage=1", "offload=optimizer"}},
    {2, 0, {"expert_parallel_size=2", "zero_stage=2", "expert_capacity=0.3"}},
    {2, LONG, {"expert_parallel_size=2", "zero_stage=3", DIVIDED}},
    {2, LONG, {"expert_parallel_size=2", "zero_stage=3", DIVIDED, "make_moe_param_leaf_module=true"}},
    {2, 0, {"expert_parallel_size=2", "zero_stage=3", DIVIDED, "offload=full", "gradient_checkpointing=false"}},
    {4, LONG, {"expert_parallel_size=4", "zero_stage=0", "gradient_checkpointing=false"}},
    {4, LONG, {"expert_parallel_size=4", "zero_stage=1"}},
    {4, 0, {"expert_parallel_size=4", "zero_stage=2"}},
    {4, 0, {"expert_parallel_size=4", "zero_stage=3", DIVIDED, "stage3_max_reuse_distance=0", "stage3_prefetch_bucket_size=0"}},
    {4, LONG, {"expert_parallel_size=4", "zero_stage=3", DIVIDED, "offload=full", "expert_capacity=0.05"}},
    {2, 4, {"expert_parallel_size=1", "zero_stage=1", "zero_group_size=2"}},
    {2, 4, {"expert_parallel_size=2", "zero_stage=2", "zero_group_size=1"}},
    {4, 4, {"expert_parallel_size=4", "zero_stage=3", DIVIDED, "zero_group_size=2", "offload=full"}},
    {2, LONG, {"expert_parallel_size=1", "zero_stage=2", "zero_group_size=2"}},
    {2, LONG, {"expert_parallel_size=2", "zero_stage=1", "zero_group_size=2"}},
    {2, LONG, {"expert_parallel_size=2", "zero_stage=3", DIVIDED, "zero_group_size=2"}},
    {1, LONG, {"expert_parallel_size=1", "zero_stage=3", DIVIDED, "zero_group_size=1"}},
    {1, LONG, {"expert_parallel_size=1", "zero_stage=1", "zero_group_size=1"}},
    {2, 2, {"sequence_parallel_size=2", "expert_parallel_size=2", "zero_stage=3", DIVIDED}},
    {2, LONG, {"sequence_parallel_size=2", "expert_parallel_size=1", "zero_stage=0", "gradient_checkpointing=false"}},
    {2, LONG, {"sequence_parallel_size=2", "expert_parallel_size=2", "zero_stage=1", "expert_capacity=0.3"}},
    {4, 4, {"sequence_parallel_size=4", "expert_parallel_size=2", "zero_stage=1", "gradient_checkpointing=false"}},
    {4, 4, {"sequence_parallel_size=2", "expert_parallel_size=4", "zero_stage=2", "zero_group_size=2"}},
    {4, LONG, {"sequence_parallel_size=4", "expert_parallel_size=4", "zero_stage=3", DIVIDED, "offload=full"}},
    {4, LONG, {"sequence_parallel_size=4", "expert_parallel_size=1", "zero_stage=0"}},
    /* the emulated GPU */
    {1, 1, {GPU, "zero_stage=0"}},
    {2, 2, {GPU, "expert_parallel_size=2", "zero_stage=3", DIVIDED, "offload=full"}},
    {4, 4, {GPU, "expert_parallel_size=4", "zero_stage=2", "zero_group_size=2"}},
    {2, 2, {GPU, "sequence_parallel_size=2", "expert_parallel_size=2", "zero_stage=2"}},
    {4, LONG, {GPU, "sequence_parallel_size=4", "expert_parallel_size=2", "zero_stage=3", DIVIDED, "gradient_checkpointing=false"}},
    {4, LONG, {GPU, "sequence_parallel_size=2", "expert_parallel_size=4", "zero_stage=1", "offload=optimizer"}},
    {1, LONG, {GPU, "expert_parallel_size=1", "zero_stage=1"}},
    {1, LONG, {GPU, "expert_parallel_size=1", "zero_stage=3", DIVIDED, "offload=full"}},
    {2, LONG, {GPU, "expert_parallel_size=2", "zero_stage=2"}},
    {2, LONG, {GPU, "expert_parallel_size=2", "zero_stage=3", DIVIDED, "expert_capacity=0.3", "gradient_checkpointing=false"}},
    {4, LONG, {GPU, "expert_parallel_size=4", "zero_stage=1", "offload=optimizer"}},
    {4, LONG, {GPU, "expert_parallel_size=4", "zero_stage=2"}},
    {4, LONG, {GPU, "expert_parallel_size=4", "zero_stage=3", DIVIDED}},
    {2, LONG, {GPU, "expert_parallel_size=2", "zero_stage=3", DIVIDED, "zero_group_size=2"}},
    {1, LONG, {GPU, "expert_parallel_size=1", "zero_stage=1", "zero_group_size=1"}},
    {1, 0, {GPU}}, /* for bf16 */
    {1, 0, {NULL}}, /* the defaults */
};

/* clang-format on */
static const struct layout *layout;

static bool is_gpu(const struct layout *l)
{
    return l->settings[0] && strcmp(l->settings[0], GPU) == 0;
}

static bool is_run(const struct layout *l)
{
    int ranks = hy3_size(MPI_COMM_WORLD);

    if (is_gpu(l) && !hy3_test_gpu_module())
        return false;
    return ranks % l->group == 0 &&
           (l->ranks == 0 || (l->ranks > 0 && l->ranks == ranks) || getenv("HY3_LONG"));
}

/* The reference's conversations (dataset.jsonl unless it names others) in the order of its
 * micro-batches, written by rank 0. */
static void write_data(const json_t *golden, const char *path)
{
    const json_t *steps = json_object_get(golden, "steps");
    const char *dataset = json_string_value(json_object_get(golden, "dataset"));
    char *text, *ordered = NULL, *lines[64];
    size_t size, count = 0, used = 0, i, j, k;
    json_t *step, *micro, *sample;

    if (hy3_rank(MPI_COMM_WORLD) != 0)
        return;
    dataset = hy3_golden(dataset ? dataset : "a/dataset.jsonl");
    assert_ok(hy3_file_read(dataset, (size_t)1 << 20, &text, &size));
    assert_ok(hy3_alloc(&ordered, size * json_array_size(steps), 1));
    for (char *at = text; at < text + size && count < 64; at = strchr(at, '\n') + 1)
        lines[count++] = at;
    json_array_foreach(steps, i, step)
    {
        json_array_foreach(json_object_get(step, "micro_batches"), j, micro)
        {
            json_array_foreach(micro, k, sample)
            {
                const char *line = lines[json_integer_value(sample)];
                size_t length = (size_t)(strchr(line, '\n') + 1 - line);

                memcpy(ordered + used, line, length);
                used += length;
            }
        }
    }
    assert_ok(hy3_output_replace(path, ordered, used));
    hy3_free(text);
    hy3_free(ordered);
}

/* Runs hy3_sft's work with the reference's hyperparameters and these settings; output in `out`. */
static void train(const json_t *golden, const char *out, const char *data,
                  const char *const *settings)
{
    const json_t *hyper = json_object_get(golden, "hyper");
    static char texts[16][HY3_PATH_MAX + 64];
    const char *all[HY3_TEST_SETTINGS] = {0};
    int count = 0, ranks = hy3_size(MPI_COMM_WORLD) / hy3_test_shared_by(layout->settings);

#define ARG(...) \
    snprintf(texts[count], sizeof texts[count], __VA_ARGS__), all[count] = texts[count], count++
    ARG("model_name_or_path=%s", hy3_golden("a/inner"));
    ARG("tokenizer_name_or_path=%s", hy3_golden("a/tokenizer"));
    ARG("train_data_file=%s", data);
    ARG("disable_shuffling=true");
    ARG("max_seq_length=64");
    ARG("per_device_train_batch_size=%d", ranks >= 4 ? 1 : 2);
    ARG("gradient_accumulation_steps=%d", ranks == 1 ? 2 : 1);
    ARG("learning_rate=%.17g", hy3_json_number(hyper, "learning_rate"));
    ARG("min_lr=%.17g", hy3_json_number(hyper, "min_lr"));
    ARG("weight_decay=%.17g", hy3_json_number(hyper, "weight_decay"));
    ARG("lr_scheduler_type=cosine_with_min_lr");
    ARG("warmup_steps=%d", (int)hy3_json_number(hyper, "warmup_steps"));
    ARG("max_steps=%zu", json_array_size(json_object_get(golden, "steps")));
    ARG("save_format=outer");
    if (!is_gpu(layout))
        ARG("device=cpu"); /* "auto" would be the emulated GPU */
#undef ARG
    for (int i = 0; settings[i]; i++)
        all[count++] = settings[i];
    for (int i = 0; layout->settings[i]; i++)
        all[count++] = layout->settings[i];
    hy3_test_train(MPI_COMM_WORLD, out, all);
}

static void compare_log(const json_t *steps, const char *out)
{
    json_t *step;
    size_t i;

    assert_true(json_array_size(steps) > 5);
    json_array_foreach(steps, i, step)
    {
        json_t *ours = hy3_test_logged(out, i);

        hy3_assert_within(
            "loss", fabs(hy3_json_number(ours, "loss") - hy3_json_number(step, "loss")), 2e-5);
        hy3_assert_within(
            "grad norm",
            fabs(hy3_json_number(ours, "grad_norm") / hy3_json_number(step, "grad_norm") - 1),
            2e-5);
        hy3_assert_within(
            "rate", fabs(hy3_json_number(ours, "learning_rate") - hy3_json_number(step, "lr")),
            2e-18);
        assert_int_equal(hy3_json_number(ours, "step"), i + 1);
        json_decref(ours);
    }
}

/* Mean, outliers and maximum over all weights that the golden file has under prefix + name. */
static int compare_weights(const char *golden_file, const char *prefix, const char *out,
                           const char *file)
{
    struct hy3_shard *golden, *ours;
    char path[HY3_PATH_MAX + 32];
    double sum = 0, worst = 0, outliers = 0, count = 0;
    int tensors = 0;

    snprintf(path, sizeof path, "%s/%s", out, file);
    assert_ok(hy3_shard_open(hy3_golden(golden_file), &golden));
    assert_ok(hy3_shard_open(path, &ours));
    for (int i = 0; i < hy3_shard_count(golden); i++) {
        const char *name = hy3_shard_tensor(golden, i)->name;
        float *a, *b;
        int64_t n;

        if (strncmp(name, prefix, strlen(prefix)) != 0)
            continue;
        a = hy3_golden_floats(golden, name, &n);
        b = hy3_golden_floats(ours, name + strlen(prefix), NULL);
        for (int64_t j = 0; j < n; j++)
            outliers += hy3_max_difference(a + j, b + j, 1) > 1e-5;
        sum += hy3_mean_difference(a, b, n) * (double)n;
        worst = fmax(worst, hy3_max_difference(a, b, n));
        count += (double)n;
        hy3_free(a);
        hy3_free(b);
        tensors++;
    }
    hy3_assert_within("final weights, mean", sum / count, 1e-6);
    hy3_assert_within("final weights, share off by 1e-5", outliers / count, 1e-4);
    hy3_assert_within("final weights, max", worst, 2e-3);
    hy3_shard_close(golden);
    hy3_shard_close(ours);
    return tensors;
}

static void paths(const char *name, char *out, char *data)
{
    snprintf(out, HY3_PATH_MAX, "%s/%s", hy3_test_directory(), name);
    snprintf(data, HY3_PATH_MAX, "%s/%s.jsonl", hy3_test_directory(), name);
}

/* A trajectory of the reference and the same by us; on_gpu: in the default tests also on the
 * emulated GPU. At least `least` tensors of its file of final weights are compared. */
static void follow(const char *name, bool on_gpu, const json_t *golden, const char *const *settings,
                   const char *weights, const char *prefix, const char *file, int least)
{
    char out[HY3_PATH_MAX], data[HY3_PATH_MAX];

    paths(name, out, data);
    write_data(golden, data);
    for (layout = layouts; layout < layouts + sizeof layouts / sizeof *layouts; layout++) {
        bool is_slow =
            is_gpu(layout) && !getenv("HY3_LONG"); /* then half of the trajectories will do */

        if (!is_run(layout) || (is_slow && (layout->ranks == 0 || !on_gpu)))
            continue;
        train(golden, out, data, settings);
        if (hy3_rank(MPI_COMM_WORLD) == 0) {
            compare_log(json_object_get(golden, "steps"), out);
            assert_true(compare_weights(weights, prefix, out, file) >= least);
        }
    }
}

static void trajectory_with_weight_decay_equals_the_reference(void **state)
{
    json_t *golden = hy3_golden_json("a/train_full.json");

    (void)state;
    follow("decay", hy3_size(MPI_COMM_WORLD) < 4, json_object_get(golden, "weight_decay_0.1"),
           (const char *[]){"bf16=false", NULL}, "a/train_full_final.safetensors", "",
           "model.safetensors", 40);
    json_decref(golden);
}

static void trajectory_without_weight_decay_equals_the_reference(void **state)
{
    json_t *golden = hy3_golden_json("a/train_full.json");

    (void)state;
    follow("no_decay", false, json_object_get(golden, "weight_decay_0.0"),
           (const char *[]){"bf16=false", NULL}, "a/train_full_selected.safetensors", "nowd.",
           "model.safetensors", 8);
    json_decref(golden);
}

/* Whether all tensors of the file but self_attn ones are still the base's. */
static void others_are_untouched(const char *name)
{
    char out[HY3_PATH_MAX], data[HY3_PATH_MAX], path[HY3_PATH_MAX + 32];
    struct hy3_shard *ours, *full;

    paths(name, out, data);
    snprintf(path, sizeof path, "%s/model.safetensors", out);
    assert_ok(hy3_shard_open(path, &ours));
    assert_ok(hy3_shard_open(hy3_golden("a/inner/model-00001-of-00005.safetensors"), &full));
    for (int i = 0; i < hy3_shard_count(full); i++) {
        const char *tensor = hy3_shard_tensor(full, i)->name;
        float *a, *b;
        int64_t n;

        if (strstr(tensor, "self_attn") || !hy3_shard_find(ours, tensor))
            continue;
        a = hy3_golden_floats(full, tensor, &n);
        b = hy3_golden_floats(ours, tensor, NULL);
        assert_memory_equal(a, b, (size_t)n * sizeof *a);
        hy3_free(a);
        hy3_free(b);
    }
    hy3_shard_close(ours);
    hy3_shard_close(full);
}

static void attention_only_trajectory_equals_the_reference(void **state)
{
    json_t *golden = hy3_golden_json("a/train_attention_only.json");

    (void)state;
    follow("attention", true, golden,
           (const char *[]){"bf16=false", "finetuning_type=attention", NULL},
           "a/train_attention_only_final.safetensors", "", "model.safetensors", 18);
    if (hy3_rank(MPI_COMM_WORLD) == 0)
        others_are_untouched("attention");
    json_decref(golden);
}

/* file: train_NAME.json of the golden files; adapter: their directory; more: settings, or NULL. */
static void follow_adapter(const char *name, bool on_gpu, const char *file, const char *adapter,
                           const char *const more[3], int least)
{
    char initial[HY3_PATH_MAX + 32], final[HY3_PATH_MAX];
    json_t *golden = hy3_golden_json(file);
    const char *settings[8] = {"bf16=false", "finetuning_type=lora", "lora_dropout=0", initial};

    for (int i = 0; more && i < 3; i++)
        settings[4 + i] = more[i];
    snprintf(initial, sizeof initial, "adapter_name_or_path=%s/initial", hy3_golden(adapter));
    snprintf(final, sizeof final, "%s/final/adapter_model.safetensors", adapter);
    follow(name, on_gpu, golden, settings, final, "", "adapter_model.safetensors", least);
    json_decref(golden);
}

static void adapter_trajectory_equals_the_reference(void **state)
{
    (void)state;
    follow_adapter("lora", true, "a/train_lora.json", "a/adapter", NULL, 24);
}

static void adapter_of_experts_trajectory_equals_the_reference(void **state)
{
    (void)state;
    follow_adapter("lora_experts", false, "a/train_lora_experts.json", "a/adapter_experts", NULL,
                   26);
}

/* PEFT's create_loraplus_optimizer over an adapter with use_rslora. */
static void rslora_with_loraplus_equals_the_reference(void **state)
{
    static const char *const more[3] = {"loraplus_lr_ratio=4"};

    (void)state;
    follow_adapter("loraplus", true, "options/train_loraplus.json", "options/loraplus", more, 14);
}

/* PEFT's modules_to_save, transformers' LabelSmoother and NEFTune. */
static void whole_modules_smoothing_and_noise_equal_the_reference(void **state)
{
    static const char *const more[3] = {"label_smoothing_factor=0.1", "neftune_noise_alpha=5"};

    (void)state;
    follow_adapter("saved", true, "options/train_saved.json", "options/saved", more, 14);
}

/* Messages with a loss_weight: the weighted sum of a step divided by the sum of the weights. */
static void weighted_messages_equal_the_reference(void **state)
{
    (void)state;
    follow_adapter("weighted", true, "options/train_weighted.json", "options/weighted", NULL, 14);
}

/* Mean over the steps of the loss's distance from the reference, in bf16 with the present layout;
 * the losses in `losses`. */
static void follow_bf16(const json_t *run, const char *out, const char *data, double *losses)
{
    const json_t *steps = json_object_get(run, "steps");
    json_t *step;
    size_t i;
    double sum = 0;

    train(run, out, data, (const char *[]){"bf16=true", NULL});
    json_array_foreach(steps, i, step)
    {
        json_t *ours = hy3_rank(MPI_COMM_WORLD) == 0 ? hy3_test_logged(out, i) : NULL;

        losses[i] = ours ? hy3_json_number(ours, "loss") : 0;
        sum += ours ? fabs(losses[i] - hy3_json_number(step, "loss")) : 0;
        json_decref(ours);
    }
    /* single steps wander further: near a tie of the router a token picks another expert */
    hy3_assert_within("bf16 loss, mean over the steps", sum / (double)json_array_size(steps), 0.05);
}

static void bf16_trajectory_follows_fp32(void **state)
{
    char out[HY3_PATH_MAX], data[HY3_PATH_MAX];
    json_t *golden = hy3_golden_json("a/train_full.json");
    const json_t *run = json_object_get(golden, "weight_decay_0.1");
    double losses[64], again[64];

    (void)state;
    paths("bf16", out, data);
    write_data(run, data);
    layout = &layouts[sizeof layouts / sizeof *layouts - 1];
    follow_bf16(run, out, data, losses);
    layout--; /* the GPU, twice: the same bits */
    if (is_run(layout) && (hy3_size(MPI_COMM_WORLD) == 1 || getenv("HY3_LONG"))) {
        follow_bf16(run, out, data, losses);
        follow_bf16(run, out, data, again);
        assert_memory_equal(losses, again,
                            json_array_size(json_object_get(run, "steps")) * sizeof *losses);
    }
    json_decref(golden);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trajectory_with_weight_decay_equals_the_reference),
        cmocka_unit_test(trajectory_without_weight_decay_equals_the_reference),
        cmocka_unit_test(attention_only_trajectory_equals_the_reference),
        cmocka_unit_test(adapter_trajectory_equals_the_reference),
        cmocka_unit_test(adapter_of_experts_trajectory_equals_the_reference),
        cmocka_unit_test(rslora_with_loraplus_equals_the_reference),
        cmocka_unit_test(whole_modules_smoothing_and_noise_equal_the_reference),
        cmocka_unit_test(weighted_messages_equal_the_reference),
        cmocka_unit_test(bf16_trajectory_follows_fp32),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
