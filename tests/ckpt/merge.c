/* SPDX-License-Identifier: Apache-2.0 */
/* merge.c - merged weights against the public script's in all dtypes: the same bits in 16, rounding
 * of a sum apart in 32. */
#include "ckpt/adapter/merge.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "base/sha256.h"
#include "model/shape.h"
#include "support/golden.h"

#include <math.h>
#include <stdio.h>

/* The model of `prefix` "ADAPTER.DTYPE." merged by us against all tensors that the golden file has
 * of it. */
static void compare(const char *adapter, hy3_dtype dtype, double limit, int least)
{
    char directory[HY3_PATH_MAX], from[HY3_PATH_MAX], base[HY3_PATH_MAX], prefix[64];
    struct hy3_merge merge = {
        .base = base, .adapter = from, .output = directory, .dtype = dtype, .workers = 2};
    struct hy3_shard *golden, *ours;
    int compared = 0;

    snprintf(prefix, sizeof prefix, "%s.%s.", adapter, hy3_dtype_name(dtype));
    snprintf(directory, sizeof directory, "%s/%s", hy3_test_directory(), prefix);
    snprintf(base, sizeof base, "%s", hy3_golden("a/inner"));
    snprintf(from, sizeof from, "%s/%s/final", hy3_golden("a"), adapter);
    assert_ok(hy3_merge(MPI_COMM_WORLD, &merge));
    assert_ok(hy3_shard_open(hy3_golden("a/merged_selected.safetensors"), &golden));
    for (int s = 1; s <= 5; s++) {
        char path[HY3_PATH_MAX + 64];

        snprintf(path, sizeof path, "%s/model-%05d-of-00005.safetensors", directory, s);
        assert_ok(hy3_shard_open(path, &ours));
        for (int i = 0; i < hy3_shard_count(golden); i++) {
            const struct hy3_shard_tensor *t = hy3_shard_tensor(golden, i);
            const char *name = t->name + strlen(prefix);
            float *a, *b;
            int64_t n;

            if (strncmp(t->name, prefix, strlen(prefix)) != 0 || !hy3_shard_find(ours, name))
                continue;
            assert_string_equal(hy3_shard_find(ours, name)->dtype_name, t->dtype_name);
            a = hy3_golden_floats(golden, t->name, &n);
            b = hy3_golden_floats(ours, name, NULL);
            hy3_assert_within(t->name, hy3_max_difference(a, b, n), limit);
            hy3_free(a);
            hy3_free(b);
            compared++;
        }
        hy3_shard_close(ours);
    }
    hy3_shard_close(golden);
    assert_true(compared >= least);
}

static void merged_weights_in_16_bits_are_equal(void **state)
{
    (void)state;
    compare("adapter", HY3_BF16, 0, 1);
    compare("adapter", HY3_FP16, 0, 1);
    compare("adapter_experts", HY3_BF16, 0, 1);
    compare("adapter_experts", HY3_FP16, 0, 1);
}

static void merged_weights_in_fp32_differ_by_the_order_of_a_sum(void **state)
{
    (void)state;
    compare("adapter", HY3_FP32, 6e-8, 2);
    compare("adapter_experts", HY3_FP32, 6e-8, 7);
}

/* A tensor of the golden model merged with options/NAME/final in bf16; the caller frees it. */
static float *merged_value(const char *name, const char *tensor, int64_t *count)
{
    char directory[HY3_PATH_MAX], from[HY3_PATH_MAX], base[HY3_PATH_MAX];
    struct hy3_merge merge = {
        .base = base, .adapter = from, .output = directory, .dtype = HY3_BF16, .workers = 2};
    float *values = NULL;

    snprintf(directory, sizeof directory, "%s/%s.options", hy3_test_directory(), name);
    snprintf(base, sizeof base, "%s", hy3_golden("a/inner"));
    snprintf(from, sizeof from, "%s/%s/final", hy3_golden("options"), name);
    if (!hy3_path_exists(directory))
        assert_ok(hy3_merge(MPI_COMM_WORLD, &merge));
    for (int s = 1; s <= 5 && !values; s++) {
        char path[HY3_PATH_MAX + 64];
        struct hy3_shard *shard;

        snprintf(path, sizeof path, "%s/model-%05d-of-00005.safetensors", directory, s);
        assert_ok(hy3_shard_open(path, &shard));
        if (hy3_shard_find(shard, tensor))
            values = hy3_golden_floats(shard, tensor, count);
        hy3_shard_close(shard);
    }
    assert_non_null(values);
    return values;
}

/* PEFT's merge_and_unload of an adapter with use_rslora. */
static void a_rank_stabilized_adapter_is_merged_as_by_peft(void **state)
{
    struct hy3_shard *golden;

    (void)state;
    assert_ok(hy3_shard_open(hy3_golden("options/merged_loraplus.safetensors"), &golden));
    assert_int_equal(hy3_shard_count(golden), 2);
    for (int i = 0; i < hy3_shard_count(golden); i++) {
        const char *name = hy3_shard_tensor(golden, i)->name;
        int64_t n, m;
        float *a = hy3_golden_floats(golden, name, &n), *b = merged_value("loraplus", name, &m);

        assert_int_equal(n, m);
        hy3_assert_within(name, hy3_max_difference(a, b, n), 0);
        hy3_free(a);
        hy3_free(b);
    }
    hy3_shard_close(golden);
}

/* The same of one with modules_to_save. */
static void whole_modules_replace_the_bases_as_by_peft(void **state)
{
    json_t *golden = hy3_golden_json("options/train_saved.json"), *value;
    const char *name;
    int compared = 0;

    (void)state;
    json_object_foreach(json_object_get(golden, "merged_bf16_sha256"), name, value)
    {
        char text[HY3_SHA256_TEXT];
        int64_t n;
        float *wide = merged_value("saved", name, &n);
        hy3_bf16 *narrow;

        assert_ok(hy3_alloc(&narrow, (size_t)n, sizeof *narrow));
        hy3_convert(wide, HY3_FP32, narrow, HY3_BF16, (size_t)n);
        assert_ok(hy3_sha256_of(narrow, (size_t)n * sizeof *narrow, text));
        assert_string_equal(text, json_string_value(value));
        hy3_free(wide);
        hy3_free(narrow);
        compared++;
    }
    assert_int_equal(compared, 2);
    json_decref(golden);
}

enum { RANK = 4, LAST = 2 }; /* the golden model has 3 layers */

/* An adapter of q_proj of the last layer only: every element of A is 0.5, of B 0.25. `config`: its
 * keys beside those that every adapter has. */
static void write_partial(const char *directory, const char *config)
{
    char path[HY3_PATH_MAX], *text;
    static float values[2 * 65536];
    char header[1024] = "", name[] = "base_model.model.model.layers.2.self_attn.q_proj";
    struct hy3_shape s;
    size_t a, b;

    assert_ok(hy3_shape_open(hy3_golden("a/inner/config.json"), &s));
    a = (size_t)(RANK * s.hidden);
    b = (size_t)(RANK * s.heads * s.head_dim);
    assert_true(a + b < sizeof values / sizeof *values);
    for (size_t i = 0; i < a + b; i++)
        values[i] = i < a ? 0.5f : 0.25f;
    snprintf(
        header, sizeof header,
        "{\"%s.lora_A.weight\":{\"dtype\":\"F32\",\"shape\":[%d,%lld],\"data_offsets\":[0,%zu]},"
        "\"%s.lora_B.weight\":{\"dtype\":\"F32\",\"shape\":[%lld,%d],\"data_offsets\":[%zu,%zu]}}",
        name, RANK, (long long)s.hidden, 4 * a, name, (long long)(s.heads * s.head_dim), RANK,
        4 * a, 4 * (a + b));
    memset(header + strlen(header), ' ', sizeof header - strlen(header));
    assert_ok(hy3_alloc(&text, 8 + sizeof header + 4 * (a + b), 1));
    text[1] = (char)(sizeof header >> 8);
    memcpy(text + 8, header, sizeof header);
    memcpy(text + 8 + sizeof header, values, 4 * (a + b));
    assert_ok(hy3_directory_create(directory));
    snprintf(path, sizeof path, "%.1000s/adapter_model.safetensors", directory);
    assert_ok(hy3_output_replace(path, text, 8 + sizeof header + 4 * (a + b)));
    hy3_free(text);
    snprintf(path, sizeof path, "%.1000s/adapter_config.json", directory);
    snprintf(header, sizeof header, "{\"peft_type\": \"LORA\", \"r\": %d, \"lora_alpha\": 8, %s}",
             RANK, config);
    assert_ok(hy3_output_replace(path, header, strlen(header)));
}

/* Tensors of two directories of the golden model's shards: equal but for one, which is `delta`
 * larger. */
static void differ_by(const char *base, const char *merged, const char *changed, float delta)
{
    int seen = 0;

    for (int s = 1; s <= 5; s++) {
        char from[HY3_PATH_MAX], to[HY3_PATH_MAX];
        struct hy3_shard *x, *y;

        snprintf(from, sizeof from, "%.1000s/model-%05d-of-00005.safetensors", base, s);
        snprintf(to, sizeof to, "%.1000s/model-%05d-of-00005.safetensors", merged, s);
        assert_ok(hy3_shard_open(from, &x));
        assert_ok(hy3_shard_open(to, &y));
        assert_int_equal(hy3_shard_count(x), hy3_shard_count(y));
        for (int i = 0; i < hy3_shard_count(x); i++) {
            const char *name = hy3_shard_tensor(x, i)->name;
            float *a, *b, more = strcmp(name, changed) == 0 ? delta : 0;
            int64_t n;

            a = hy3_golden_floats(x, name, &n);
            b = hy3_golden_floats(y, name, NULL);
            for (int64_t j = 0; j < n; j++)
                assert_true(fabsf(a[j] + more - b[j]) <= (more > 0 ? 1e-6f : 0));
            seen += more > 0;
            hy3_free(a);
            hy3_free(b);
        }
        hy3_shard_close(x);
        hy3_shard_close(y);
    }
    assert_int_equal(seen, 1);
}

static void an_adapter_of_some_layers_changes_those_only(void **state)
{
    static const char *const ways[] = {
        "\"target_modules\": \".*layers\\\\.2\\\\.self_attn\\\\.q_proj\"",
        "\"target_modules\": [\"q_proj\"], \"layers_to_transform\": [2], "
        "\"layers_pattern\": \"layers\"",
        "\"target_modules\": [\"q_proj\"], \"exclude_modules\": "
        "[\"layers.0.self_attn.q_proj\", \"1.self_attn.q_proj\"]",
        "\"target_modules\": [\"model.layers.2.self_attn.q_proj\"]",
    };
    char base[HY3_PATH_MAX], adapter[HY3_PATH_MAX], output[HY3_PATH_MAX];
    struct hy3_merge merge = {
        .base = base, .adapter = adapter, .output = output, .dtype = HY3_FP32, .workers = 1};

    (void)state;
    snprintf(base, sizeof base, "%s", hy3_golden("a/inner"));
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        snprintf(adapter, sizeof adapter, "%s/partial%zu", hy3_test_directory(), i);
        snprintf(output, sizeof output, "%s/merged%zu", hy3_test_directory(), i);
        write_partial(adapter, ways[i]);
        assert_ok(hy3_merge(MPI_COMM_WORLD, &merge));
        /* 8 / 4 * 4 * 0.25 * 0.5 */
        differ_by(base, output, "model.layers.2.self_attn.q_proj.weight", 1);
    }
}

static void an_adapter_that_is_not_what_its_configuration_says_is_refused(void **state)
{
    static const struct {
        const char *way, *words;
    } lacking[] = {
        {"\"target_modules\": [\"q_proj\"]", "layers.0.self_attn.q_proj.weight' are missing"},
        {"\"target_modules\": [\"q_proj\"], \"layers_to_transform\": [1, 2]",
         "layers.1.self_attn.q_proj.weight' are missing"},
        {"\"target_modules\": [\"k_proj\", \"q_proj\"], \"layers_to_transform\": 2",
         "layers.2.self_attn.k_proj.weight' are missing"},
        {"\"target_modules\": [\"q_proj\"], \"exclude_modules\": [\"0.self_attn.q_proj\"]",
         "layers.1.self_attn.q_proj.weight' are missing"},
        {"\"target_modules\": [\"q_proj\"], \"layers_to_transform\": [1]",
         "layers.1.self_attn.q_proj.weight' are missing"},
        {"\"target_modules\": \".*_proj\", \"layers_to_transform\": 1",
         "has factors of 'model.layers.2.self_attn.q_proj.weight', which"},
        {"\"target_modules\": \".*_proj\", \"exclude_modules\": [\"q_proj\"]",
         "has factors of 'model.layers.2.self_attn.q_proj.weight', which"},
        {"\"target_modules\": [\"model.layers.2.mlp.q_proj\"]",
         "has factors of 'model.layers.2.self_attn.q_proj.weight', which"},
    };

    char base[HY3_PATH_MAX], adapter[HY3_PATH_MAX], output[HY3_PATH_MAX];
    struct hy3_merge merge = {
        .base = base, .adapter = adapter, .output = output, .dtype = HY3_FP32, .workers = 1};

    (void)state;
    snprintf(base, sizeof base, "%s", hy3_golden("a/inner"));
    snprintf(adapter, sizeof adapter, "%s/lacking", hy3_test_directory());
    snprintf(output, sizeof output, "%s/nothing", hy3_test_directory());
    for (size_t i = 0; i < sizeof lacking / sizeof *lacking; i++) {
        write_partial(adapter, lacking[i].way);
        assert_fails(HY3_EFORMAT, lacking[i].words, hy3_merge(MPI_COMM_WORLD, &merge));
    }
    write_partial(adapter, "\"target_modules\": \".*2.*\", \"rank_pattern\": {\"q_proj\": 2}");
    assert_fails(HY3_EFORMAT, "'rank_pattern' is set", hy3_merge(MPI_COMM_WORLD, &merge));
    assert_false(hy3_path_exists(output));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merged_weights_in_16_bits_are_equal),
        cmocka_unit_test(merged_weights_in_fp32_differ_by_the_order_of_a_sum),
        cmocka_unit_test(a_rank_stabilized_adapter_is_merged_as_by_peft),
        cmocka_unit_test(whole_modules_replace_the_bases_as_by_peft),
        cmocka_unit_test(an_adapter_of_some_layers_changes_those_only),
        cmocka_unit_test(an_adapter_that_is_not_what_its_configuration_says_is_refused),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
