/* SPDX-License-Identifier: Apache-2.0 */
/* hf/directory.c - a directory is read bit for bit, or refused with the names of what is wrong with
 * it. */
#include "ckpt/hf/directory.h"

#include "ckpt/fixture.h"

#include <math.h>

/* These tests change directories rank by rank. */
static const char *own_scratch(const char *name)
{
    char own[256];

    snprintf(own, sizeof own, "%s-%d", name, hy3_rank(MPI_COMM_WORLD));
    return scratch(own);
}

static void the_golden_values_arrive_bit_for_bit(void **state)
{
    struct model m;
    int compared = 0;
    bool same = true;

    (void)state;
    model_open(&m, MPI_COMM_WORLD, hy3_golden("a/inner"), HY3_BF16);
    assert_all(hy3_hf_load(MPI_COMM_WORLD, m.dir, m.store, NULL) == HY3_OK);
    assert_all(hy3_hf_dir_names(m.dir) == HY3_INNER);
    for (int s = 0; s < hy3_hf_dir_shards(m.dir); s++) {
        struct hy3_shard *shard;

        assert_ok(hy3_hf_dir_open_shard(m.dir, s, &shard));
        for (int i = 0; i < hy3_shard_count(shard); i++) {
            const struct hy3_shard_tensor *t = hy3_shard_tensor(shard, i);
            struct hy3_place place;
            float *want, *got;

            hy3_name_locate(m.params, t->name, &place);
            if (!place.param)
                continue;
            assert_ok(hy3_alloc(&want, (size_t)t->count, sizeof *want));
            assert_ok(hy3_alloc(&got, (size_t)t->count, sizeof *got));
            assert_ok(hy3_shard_read(shard, t, (struct hy3_span){0, t->count}, want, HY3_FP32));
            assert_ok(hy3_store_get(m.store, place.param, place.span, got));
            same = same && memcmp(want, got, (size_t)t->count * sizeof *want) == 0;
            compared++;
            hy3_free(want);
            hy3_free(got);
        }
        hy3_shard_close(shard);
    }
    assert_all(same);
    assert_all(compared > m.params->count);
    model_close(&m);
}

/* Replaces the index of a copy of the golden model, or removes it (NULL). */
static const char *with_index(const char *index)
{
    const char *directory = own_scratch("bad");
    char path[HY3_PATH_MAX];

    copy_golden(directory);
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", directory);
    unlink(path);
    if (index)
        assert_ok(hy3_output_copy(index, path));
    return directory;
}

static void every_hostile_index_is_judged_as_the_golden_list_says(void **state)
{
    json_t *list = hy3_golden_json("a/bad_inputs.json"), *row;
    int judged = 0;
    size_t i;

    (void)state;
    json_array_foreach(json_object_get(list, "files"), i, row)
    {
        const char *expect = json_string_value(json_object_get(row, "expect"));
        char name[256];
        struct hy3_hf_dir *dir = NULL;
        hy3_status status;

        if (strcmp(json_string_value(json_object_get(row, "kind")), "index") != 0)
            continue;
        judged++;
        snprintf(name, sizeof name, "a/bad_inputs/%s",
                 json_string_value(json_object_get(row, "file")));
        status = hy3_hf_dir_open(with_index(hy3_golden(name)), &dir);
        hy3_hf_dir_close(dir);
        if (strcmp(expect, "reject") == 0)
            assert_fails(HY3_EFORMAT, "model.safetensors.index.json", status);
    }
    assert_true(judged >= 7);
    json_decref(list);
}

static void a_directory_without_index_says_what_it_has(void **state)
{
    struct hy3_hf_dir *dir = NULL;

    (void)state;
    assert_fails(HY3_EFORMAT, "has 5 safetensors files but no 'model.safetensors.index.json'",
                 hy3_hf_dir_open(with_index(NULL), &dir));
    assert_fails(HY3_EFORMAT, "no 'model.safetensors.index.json'",
                 hy3_hf_dir_open(hy3_golden("a/tokenizer"), &dir));
    assert_fails(HY3_EIO, "does not exist", hy3_hf_dir_open("/no/such/model", &dir));
    assert_null(dir);
}

/* Applies one change to the index and config of a copy and loads it; the error must contain
 * `words`. */
static void refuses(const char *words, const char *drop, const char *add, const char *key,
                    int value)
{
    const char *directory = with_index(hy3_golden("a/inner/model.safetensors.index.json"));
    char path[HY3_PATH_MAX];
    json_t *index, *config;
    struct model m;

    snprintf(path, sizeof path, "%s/model.safetensors.index.json", directory);
    assert_ok(hy3_json_read(path, 1 << 20, &index));
    if (drop)
        assert_int_equal(json_object_del(json_object_get(index, "weight_map"), drop), 0);
    if (add)
        json_object_set_new(json_object_get(index, "weight_map"), add,
                            json_string("model-00001-of-00005.safetensors"));
    assert_ok(hy3_json_write(path, index));
    snprintf(path, sizeof path, "%s/config.json", directory);
    assert_ok(hy3_json_read(path, 1 << 20, &config));
    if (key)
        json_object_set_new(config, key, json_integer(value));
    assert_ok(hy3_json_write(path, config));
    model_open(&m, MPI_COMM_SELF, directory, HY3_FP32);
    assert_fails(HY3_EFORMAT, words, hy3_hf_load(MPI_COMM_SELF, m.dir, m.store, NULL));
    model_close(&m);
    json_decref(index);
    json_decref(config);
}

static void an_index_of_millions_of_tensors_is_refused(void **state)
{
    static const char head[] = "{\"metadata\":{},\"weight_map\":{   ", entry[] = "\"a\":\"b\",";

    size_t size = 4 << 20;
    char *text = test_malloc(size), path[HY3_PATH_MAX];
    const char *directory = with_index(NULL);
    struct hy3_hf_dir *dir = NULL;

    (void)state;
    for (size_t i = 0; i < size; i++)
        text[i] = entry[i % strlen(entry)];
    memcpy(text, head, strlen(head));
    snprintf(path, sizeof path, "%s/model.safetensors.index.json", directory);
    assert_ok(hy3_output_replace(path, text, size));
    assert_fails(HY3_EFORMAT, "model.safetensors.index.json: its JSON values would take about",
                 hy3_hf_dir_open(directory, &dir));
    assert_null(dir);
    test_free(text);
}

static void every_tensor_is_accounted_for(void **state)
{
    (void)state;
    refuses(
        "1 not in the shard of the index: model.norm.weight in model-00005-of-00005.safetensors",
        "model.norm.weight", NULL, NULL, 0);
    refuses("1 missing: model.norm.weight", "model.norm.weight", NULL, NULL, 0);
    refuses("1 missing: model.layers.1.mlp.experts.3.up_proj.weight",
            "model.layers.1.mlp.experts.3.up_proj.weight", NULL, NULL, 0);
    refuses("1 missing: model.layers.9.extra", NULL, "model.layers.9.extra", NULL, 0);
    refuses("model.layers.3.mlp.expert_bias", NULL, NULL, "num_nextn_predict_layers", 0);
    refuses("missing: model.layers.1.mlp.gate_proj.weight", NULL, NULL, "first_k_dense_replace", 2);
    refuses("lm_head.weight [1984, 40] instead of [2000, 40]", NULL, NULL, "vocab_size", 2000);
    refuses("not part of the model: model.layers.1.mlp.experts.7.", NULL, NULL, "num_experts", 7);
}

static void a_broken_value_is_found_by_name(void **state)
{
    const char *directory = with_index(hy3_golden("a/inner/model.safetensors.index.json"));
    struct hy3_shard *shard;
    const struct hy3_shard_tensor *t;
    const uint16_t infinity = 0x7f80;
    char path[HY3_PATH_MAX];
    struct model m;
    FILE *file;

    (void)state;
    snprintf(path, sizeof path, "%s/model-00005-of-00005.safetensors", directory);
    assert_ok(hy3_shard_open(path, &shard));
    assert_non_null(t = hy3_shard_find(shard, "lm_head.weight"));
    assert_non_null(file = fopen(path, "r+b"));
    fseek(file, (long)(t->begin + 2 * 5000), SEEK_SET);
    fwrite(&infinity, 2, 1, file);
    fclose(file);
    hy3_shard_close(shard);
    model_open(&m, MPI_COMM_SELF, directory, HY3_FP32);
    assert_fails(HY3_EFORMAT, "element 5000 of tensor 'lm_head.weight' is NaN or infinite",
                 hy3_hf_load(MPI_COMM_SELF, m.dir, m.store, NULL));
    model_close(&m);
}

static void one_file_is_a_model_too_and_links_are_followed(void **state)
{
    const char *cache = own_scratch("cache"), *directory = own_scratch("links");
    struct hy3_hf_dir *dir;
    char from[HY3_PATH_MAX], to[HY3_PATH_MAX];
    int shard;

    (void)state;
    copy_golden(cache);
    assert_ok(hy3_directory_create(directory));
    snprintf(from, sizeof from, "%s/model-00004-of-00005.safetensors", cache);
    snprintf(to, sizeof to, "%s/model.safetensors", directory);
    assert_int_equal(symlink(from, to), 0);
    assert_ok(hy3_hf_dir_open(directory, &dir));
    assert_int_equal(hy3_hf_dir_shards(dir), 1);
    assert_true(hy3_hf_dir_tensors(dir) > 0);
    for (int i = 1; i < hy3_hf_dir_tensors(dir); i++)
        assert_true(
            strcmp(hy3_hf_dir_tensor(dir, i - 1, &shard), hy3_hf_dir_tensor(dir, i, &shard)) < 0);
    hy3_hf_dir_close(dir);
}

static void running_out_of_memory_is_reported(void **state)
{
    (void)state;
    for (int n = 1; n < 1000; n++) {
        struct hy3_hf_dir *dir = NULL;
        hy3_status status;

        hy3_alloc_fail_at(n);
        status = hy3_hf_dir_open(hy3_golden("a/inner"), &dir);
        hy3_alloc_fail_at(0);
        hy3_hf_dir_close(dir);
        if (status == HY3_OK) {
            assert_true(n > 10);
            return;
        }
        assert_int_equal(status, HY3_ENOMEM);
    }
    fail_msg("1000 failing allocations did not end");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_golden_values_arrive_bit_for_bit),
        cmocka_unit_test(every_hostile_index_is_judged_as_the_golden_list_says),
        cmocka_unit_test(a_directory_without_index_says_what_it_has),
        cmocka_unit_test(an_index_of_millions_of_tensors_is_refused),
        cmocka_unit_test(every_tensor_is_accounted_for),
        cmocka_unit_test(a_broken_value_is_found_by_name),
        cmocka_unit_test(one_file_is_a_model_too_and_links_are_followed),
        cmocka_unit_test(running_out_of_memory_is_reported),
    };
    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
