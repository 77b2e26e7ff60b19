/* SPDX-License-Identifier: Apache-2.0 */
/* wide.c - models with more bits than bf16 has, from file to file: router weights in fp32 in a bf16
 * model, as transformers writes it from 5.24 on, and a base that is fp32 altogether. */
#include "app/export.h"
#include "app/loaded_model.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "ckpt/adapter/merge.h"
#include "ckpt/hf/check.h"
#include "ckpt/hf/convert.h"
#include "comm/comm.h"
#include "optim/sharded_optimizer.h"
#include "support/golden.h"
#include "support/training.h"

#include <math.h>

enum { SHARDS = 5, SHARD_BYTES = 4 << 20 };

static const char gate[] = ".mlp.router.gate.weight";

static bool is_gate(const char *name)
{
    return strstr(name, gate) || strstr(name, ".mlp.gate.weight");
}

/* The lower half of an fp32 weight whose upper half is the golden one: of the nearest bf16, or just
 * between two. */
static uint32_t low_bits(uint32_t i)
{
    return i % 16 == 0 ? 0x8000 : i * 40503u % 0x8000;
}

static void widen(const struct hy3_shard *shard, const struct hy3_shard_tensor *t, float *to)
{
    assert_ok(hy3_shard_read(shard, t, (struct hy3_span){0, t->count}, to, HY3_FP32));
    for (int64_t i = 0; t->dtype != HY3_FP32 && i < t->count; i++)
        to[i] = hy3_float_from_bits(hy3_bits_from_float(to[i]) | low_bits((uint32_t)i));
}

/* One shard of the golden model with its router weights, or everything, as fp32. */
static void write_shard(const char *directory, int number, bool all, int64_t *total)
{
    char path[HY3_PATH_MAX + 64], name[64], *data, *text;
    json_t *header = json_object();
    struct hy3_shard *shard;
    size_t at = 0, length;

    snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", number, SHARDS);
    snprintf(path, sizeof path, "%s/%s", hy3_golden("a/inner"), name);
    assert_ok(hy3_shard_open(path, &shard));
    assert_ok(hy3_alloc(&data, SHARD_BYTES, 1));
    for (int pass = 0; pass < 2; pass++) /* wider ones first */
        for (int i = 0; i < hy3_shard_count(shard); i++) {
            const struct hy3_shard_tensor *t = hy3_shard_tensor(shard, i);
            bool wide = all || is_gate(t->name) || t->dtype == HY3_FP32;
            int64_t bytes = wide ? 4 * t->count : t->bytes;
            json_t *shape = json_array();

            if (wide == (pass == 1)) {
                json_decref(shape);
                continue;
            }
            if (wide)
                widen(shard, t, (float *)(void *)(data + at));
            else
                assert_ok(hy3_shard_read_raw(shard, t, 0, bytes, data + at));
            for (int d = 0; d < t->dims; d++)
                json_array_append_new(shape, json_integer(t->shape[d]));
            json_object_set_new(header, t->name,
                                json_pack("{s:s, s:o, s:[I, I]}", "dtype", wide ? "F32" : "BF16",
                                          "shape", shape, "data_offsets", (json_int_t)at,
                                          (json_int_t)at + (json_int_t)bytes));
            at += (size_t)bytes;
            *total += bytes;
        }
    text = json_dumps(header, JSON_COMPACT);
    length = strlen(text);
    memmove(data + 8 + length, data, at);
    for (size_t i = 0; i < 8; i++)
        data[i] = (char)(length >> (8 * i) & 255);
    memcpy(data + 8, text, length);
    snprintf(path, sizeof path, "%s/%s", directory, name);
    assert_ok(hy3_output_replace(path, data, 8 + length + at));
    free(text);
    hy3_free(data);
    json_decref(header);
    hy3_shard_close(shard);
}

/* The golden model with fp32 router weights, or with all weights in fp32. Rank 0 writes. */
static const char *make_base(bool all)
{
    static char directories[2][HY3_PATH_MAX];
    static const char *const files[] = {"config.json", "model.safetensors.index.json"};
    char *directory = directories[all], from[HY3_PATH_MAX + 64], to[HY3_PATH_MAX + 64];
    int64_t total = 0;

    snprintf(directory, HY3_PATH_MAX, "%s/base%d", hy3_test_directory(), all);
    for (int i = 1; i <= SHARDS && hy3_rank(MPI_COMM_WORLD) == 0; i++) {
        assert_ok(hy3_directory_create(directory));
        write_shard(directory, i, all, &total);
    }
    for (int i = 0; i < 2 && hy3_rank(MPI_COMM_WORLD) == 0; i++) {
        json_t *file;

        snprintf(from, sizeof from, "%s/%s", hy3_golden("a/inner"), files[i]);
        snprintf(to, sizeof to, "%s/%s", directory, files[i]);
        assert_ok(hy3_json_read(from, 1 << 20, &file));
        if (i == 0)
            json_object_set_new(file, "dtype", json_string(all ? "float32" : "bfloat16"));
        else
            json_object_set_new(json_object_get(file, "metadata"), "total_size",
                                json_integer(total));
        assert_ok(hy3_json_write(to, file));
        json_decref(file);
    }
    hy3_barrier(MPI_COMM_WORLD, "testing");
    return directory;
}

static void is_sound(const char *directory)
{
    const struct hy3_check check = {.directory = directory, .spot_check = -1};
    struct hy3_check_summary summary;

    assert_ok(hy3_check(MPI_COMM_WORLD, &check, stderr, &summary));
    assert_int_equal(summary.findings, 0);
    assert_true(summary.tensors > 30);
}

/* A tensor of a model in one shard or SHARDS, as fp32; its dtype must be `dtype`. */
static float *tensor_of(const char *directory, const char *name, const char *dtype, int64_t *n)
{
    char path[HY3_PATH_MAX + 64];
    float *values = NULL;

    for (int s = 0; s <= SHARDS && !values; s++) {
        struct hy3_shard *shard;

        snprintf(path, sizeof path, "%s/model.safetensors", directory);
        if (s > 0)
            snprintf(path, sizeof path, "%s/model-%05d-of-%05d.safetensors", directory, s, SHARDS);
        if (!hy3_path_exists(path))
            continue;
        assert_ok(hy3_shard_open(path, &shard));
        if (hy3_shard_find(shard, name)) {
            assert_string_equal(hy3_shard_find(shard, name)->dtype_name, dtype);
            values = hy3_golden_floats(shard, name, n);
        }
        hy3_shard_close(shard);
    }
    assert_non_null(values);
    return values;
}

/* Whether the router weights of both models have the same bits; all must be F32. */
static bool are_gates_equal(const char *a, const char *b, bool is_outer)
{
    bool equal = true;

    for (int layer = 1; layer <= 2; layer++) {
        char inner[64], outer[64];
        float *x, *y;
        int64_t n;

        snprintf(inner, sizeof inner, "model.layers.%d%s", layer, gate);
        snprintf(outer, sizeof outer, "model.layers.%d.mlp.gate.weight", layer);
        x = tensor_of(a, inner, "F32", &n);
        y = tensor_of(b, is_outer ? outer : inner, "F32", NULL);
        equal = equal && memcmp(x, y, (size_t)n * sizeof *x) == 0;
        hy3_free(x);
        hy3_free(y);
    }
    return equal;
}

/* One or two steps from `base` in bf16 with a checkpoint after each; output in `out`. */
static void train(const char *base, const char *name, const char *const *settings, char *out)
{
    static char texts[3][HY3_PATH_MAX + 64];
    const char *all[HY3_TEST_SETTINGS] = {texts[0],
                                          texts[1],
                                          texts[2],
                                          "device=cpu",
                                          "bf16=true",
                                          "max_seq_length=64",
                                          "per_device_train_batch_size=2",
                                          "lr_scheduler_type=constant",
                                          "warmup_ratio=0",
                                          "weight_decay=0",
                                          "save_steps=1"};
    int count = 11;

    snprintf(texts[0], sizeof texts[0], "model_name_or_path=%s", base);
    snprintf(texts[1], sizeof texts[1], "tokenizer_name_or_path=%s", hy3_golden("a/tokenizer"));
    snprintf(texts[2], sizeof texts[2], "train_data_file=%s", hy3_golden("a/dataset.jsonl"));
    snprintf(out, HY3_PATH_MAX, "%s/%s", hy3_test_directory(), name);
    for (int i = 0; settings[i]; i++)
        all[count++] = settings[i];
    hy3_test_train(MPI_COMM_WORLD, out, all);
}

/* The checkpoint of `step` as a model beside it. */
static void export(const char *out, int step, int dtype, char *to)
{
    char checkpoint[HY3_PATH_MAX + 64];
    const struct hy3_export options = {.checkpoint = checkpoint,
                                       .output = to,
                                       .names = -1,
                                       .dtype = dtype,
                                       .max_shard_bytes = 5000000000};

    snprintf(checkpoint, sizeof checkpoint, "%s/checkpoint-%d", out, step);
    assert_true(snprintf(to, HY3_PATH_MAX, "%s.exported", out) < HY3_PATH_MAX);
    assert_ok(hy3_export(MPI_COMM_WORLD, &options));
}

static void fp32_router_weights_pass_every_program(void **state)
{
    const char *base = make_base(false);
    char merged[HY3_PATH_MAX], outer[HY3_PATH_MAX], adapter[HY3_PATH_MAX];
    struct hy3_merge merge = {.base = base, .adapter = adapter, .output = merged, .workers = 1};
    const struct hy3_hf_conversion conversion = {
        .input = merged, .output = outer, .layout = {.names = HY3_OUTER}, .workers = 1};

    (void)state;
    is_sound(base);
    is_sound(make_base(true));
    merge.dtype = HY3_BF16;
    snprintf(adapter, sizeof adapter, "%s", hy3_golden("a/adapter/final"));
    snprintf(merged, sizeof merged, "%s/merged", hy3_test_directory());
    snprintf(outer, sizeof outer, "%s/outer", hy3_test_directory());
    assert_ok(hy3_merge(MPI_COMM_WORLD, &merge));
    is_sound(merged);
    assert_true(are_gates_equal(base, merged, false));
    assert_ok(hy3_hf_convert(MPI_COMM_WORLD, &conversion));
    is_sound(outer);
    assert_true(are_gates_equal(base, outer, true));
}

static void frozen_router_weights_keep_their_bits(void **state)
{
    const char *base = make_base(false);
    char out[HY3_PATH_MAX], exported[HY3_PATH_MAX];

    (void)state;
    train(base, "attention",
          (const char *[]){"finetuning_type=attention", "max_steps=1", "zero_stage=3",
                           "learning_rate=1e-3", NULL},
          out);
    is_sound(out);
    assert_true(are_gates_equal(base, out, false));
    export(out, 1, -1, exported);
    assert_true(are_gates_equal(base, exported, false));
}

/* Also where the masters lie between two bf16 numbers: the fp32 base's do at this rate. */
static void a_run_writes_the_bytes_of_its_export(void **state)
{
    char out[HY3_PATH_MAX], exported[HY3_PATH_MAX], path[HY3_PATH_MAX + 64], *ours, *theirs;
    size_t n, m;

    (void)state;
    for (int all = 0; all < 2; all++) {
        const char *base = make_base(all);

        train(base, all ? "full1" : "full0",
              (const char *[]){"max_steps=2", "zero_stage=1",
                               all ? "learning_rate=1e-12" : "learning_rate=1e-3", NULL},
              out);
        is_sound(out);
        assert_true(all || !are_gates_equal(base, out, false)); /* they were trained */
        export(out, 2, -1, exported);
        is_sound(exported);
        if (hy3_rank(MPI_COMM_WORLD) > 0)
            continue;
        snprintf(path, sizeof path, "%s/model.safetensors", out);
        assert_ok(hy3_file_read(path, SHARD_BYTES, &ours, &n));
        snprintf(path, sizeof path, "%s/model.safetensors", exported);
        assert_ok(hy3_file_read(path, SHARD_BYTES, &theirs, &m));
        assert_int_equal(n, m);
        assert_memory_equal(ours, theirs, n);
        hy3_free(ours);
        hy3_free(theirs);
    }
}

static void masters_start_from_the_bits_of_an_fp32_base(void **state)
{
    const char *base = make_base(true);
    char out[HY3_PATH_MAX], exported[HY3_PATH_MAX];
    int64_t large = 0;

    (void)state;
    train(base, "masters",
          (const char *[]){"max_steps=1", "zero_stage=2", "learning_rate=1e-12", NULL}, out);
    export(out, 1, HY3_FP32, exported);
    for (int s = 1; s <= SHARDS; s++) {
        char path[HY3_PATH_MAX + 64];
        struct hy3_shard *shard;

        snprintf(path, sizeof path, "%s/model-%05d-of-%05d.safetensors", base, s, SHARDS);
        assert_ok(hy3_shard_open(path, &shard));
        for (int i = 0; i < hy3_shard_count(shard); i++) {
            const char *name = hy3_shard_tensor(shard, i)->name;
            int64_t n;
            float *a = hy3_golden_floats(shard, name, &n);
            float *b = tensor_of(exported, name, "F32", NULL);

            for (int64_t j = 0; j < n; j++) { /* the step is below half a unit of the last place */
                large += fabsf(a[j]) > 1e-4f;
                if (fabsf(a[j]) > 1e-4f)
                    assert_true(a[j] == b[j]);
                else
                    assert_true(fabs((double)a[j] - (double)b[j]) < 2e-12);
            }
            hy3_free(a);
            hy3_free(b);
        }
        hy3_shard_close(shard);
    }
    assert_true(large > 200000);
}

/* Whether all ranks have the same number. */
static bool is_common(int64_t number)
{
    int64_t both[2] = {number, -number};

    hy3_allreduce_int(MPI_COMM_WORLD, both, 2, MPI_MIN, "testing");
    return both[0] == -both[1];
}

/* The factors' bits on this rank, in one number; *ties: masters that bf16 has no nearest for. */
static int64_t sum_factors(const struct hy3_loaded_model *m, struct hy3_values masters,
                           int64_t *ties)
{
    uint64_t sum = 0;

    for (int i = m->params->base_count; i < m->params->count; i++) {
        const struct hy3_param *p = &m->params->params[i];
        struct hy3_span kept = masters.kept(masters.of, p);
        const hy3_bf16 *w;
        float *values;

        assert_ok(hy3_store_gather(m->store, NULL, p->unit));
        w = hy3_store_weight(m->store, p); /* CPU backend */
        for (int64_t j = 0; j < p->count; j++)
            sum = sum * 31 + w[j];
        assert_ok(hy3_alloc(&values, (size_t)kept.count, sizeof *values));
        assert_ok(masters.get(masters.of, HY3_MASTER, p, kept, values));
        for (int64_t j = 0; j < kept.count; j++)
            *ties += (hy3_bits_from_float(values[j]) & 0x1ffff) == 0x8000;
        hy3_free(values);
    }
    return (int64_t)(sum >> 2);
}

static void a_new_adapter_is_the_same_on_all_ranks(void **state)
{
    struct hy3_loaded_model_options options = {.directory = hy3_golden("a/inner"),
                                               .device = "cpu",
                                               .expert_parallel_size = 1,
                                               .store = {.dtype = HY3_BF16, .zero_stage = 1},
                                               .training = HY3_TRAIN_ADAPTER,
                                               .lora = {.rank = 2048, .alpha = 1}};
    const struct hy3_optimizer_options adamw = {.beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8};
    struct hy3_loaded_model model;
    struct hy3_sharded_optimizer optimizer;
    struct hy3_values masters;
    int64_t ties = 0, sum;

    (void)state;
    options.lora.targets[HY3_P_Q] = options.lora.targets[HY3_P_O] = true;
    assert_ok(hy3_loaded_model_open(MPI_COMM_WORLD, &options, &model));
    assert_ok(hy3_loaded_model_allocate(&model, &options));
    assert_ok(hy3_sharded_optimizer_open(model.backend, model.store, &adamw,
                                         &(struct hy3_offloading){0}, &optimizer));
    masters = hy3_sharded_optimizer_values(&optimizer);
    assert_ok(hy3_loaded_model_read(&model, &masters));
    assert_ok(hy3_loaded_model_load_adapter(&model, 11, masters));
    sum = sum_factors(&model, masters, &ties);
    hy3_allreduce_int(MPI_COMM_WORLD, &ties, 1, MPI_SUM, "testing");
    assert_all(ties > 0);
    assert_all(is_common(sum));
    hy3_sharded_optimizer_close(&optimizer);
    hy3_loaded_model_close(&model);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fp32_router_weights_pass_every_program),
        cmocka_unit_test(frozen_router_weights_keep_their_bits),
        cmocka_unit_test(a_run_writes_the_bytes_of_its_export),
        cmocka_unit_test(masters_start_from_the_bits_of_an_fp32_base),
        cmocka_unit_test(a_new_adapter_is_the_same_on_all_ranks),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
