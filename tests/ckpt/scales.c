/* SPDX-License-Identifier: Apache-2.0 */
/* hf/scales.c - 8-bit checkpoints expand to recorded values, bit for bit; whatever is wrong with
 * their scales is refused by the tensor's name. */
#include "ckpt/hf/scales.h"

#include "base/sha256.h"
#include "ckpt/fixture.h"
#include "ckpt/hf/check.h"
#include "ckpt/hf/plan.h"
#include "support/golden.h"

#include <fcntl.h>

/* Compares what `dtype` rounded to bf16 gives with the answers of tests/golden/gen_fp8.py. */
static void check_values(const char *name, hy3_dtype dtype)
{
    char path[HY3_PATH_MAX], hash[HY3_SHA256_TEXT];
    struct model m;
    json_t *answer;
    const char *tensor;
    const json_t *want;
    bool same = true;

    snprintf(path, sizeof path, "fp8/%s/answer.json", name);
    answer = hy3_golden_json(path);
    snprintf(path, sizeof path, "fp8/%s", name);
    model_open(&m, MPI_COMM_WORLD, hy3_golden(path), dtype);
    assert_all(hy3_hf_load(MPI_COMM_WORLD, m.dir, m.store, NULL) == HY3_OK);
    assert_true(json_object_size(answer) > 10);
    json_object_foreach(answer, tensor, want)
    {
        const struct hy3_param *p = hy3_params_named(m.params, tensor);
        hy3_bf16 *narrow;
        float *got;

        assert_non_null(p);
        assert_ok(hy3_alloc(&got, (size_t)p->count, sizeof *got));
        assert_ok(hy3_alloc(&narrow, (size_t)p->count, sizeof *narrow));
        assert_ok(hy3_store_get(m.store, p, (struct hy3_span){0, p->count}, got));
        hy3_convert(got, HY3_FP32, narrow, HY3_BF16, (size_t)p->count);
        assert_ok(hy3_sha256_of(narrow, (size_t)p->count * sizeof *narrow, hash));
        if (strcmp(hash, json_string_value(want)) != 0)
            printf("# %s differs\n", tensor);
        same = same && strcmp(hash, json_string_value(want)) == 0;
        hy3_free(narrow);
        hy3_free(got);
    }
    assert_all(same);
    json_decref(answer);
    model_close(&m);
}

static void blocks_expand_as_in_transformers(void **state)
{
    (void)state;
    check_values("block", HY3_BF16);
    check_values("block", HY3_FP32);
}

static void every_form_and_size_expands_as_in_numpy(void **state)
{
    (void)state;
    check_values("mixed", HY3_BF16);
    check_values("mixed", HY3_FP32);
}

/* A copy of the mixed checkpoint with `bytes` written at `at` of its shard. */
static const char *changed(int64_t at, const void *bytes, size_t count)
{
    static const char *const files[] = {"config.json", "model.safetensors"};
    char own[64], from[HY3_PATH_MAX], to[HY3_PATH_MAX];
    const char *directory;
    int fd;

    snprintf(own, sizeof own, "hostile-%d", hy3_rank(MPI_COMM_WORLD));
    directory = scratch(own);
    assert_ok(hy3_directory_create(directory));
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(from, sizeof from, "fp8/mixed/%s", files[i]);
        snprintf(to, sizeof to, "%s/%s", directory, files[i]);
        unlink(to);
        assert_ok(hy3_output_copy(hy3_golden(from), to));
    }
    assert_true((fd = open(to, O_WRONLY | O_CLOEXEC)) >= 0);
    assert_int_equal(pwrite(fd, bytes, count, at), (ssize_t)count);
    close(fd);
    return directory;
}

static void refuses(const char *words, const char *directory)
{
    struct model m;

    model_open(&m, MPI_COMM_SELF, directory, HY3_BF16);
    assert_fails(HY3_EFORMAT, words, hy3_hf_load(MPI_COMM_SELF, m.dir, m.store, NULL));
    model_close(&m);
}

/* The place of a tensor's data in the shard. */
static int64_t data_of(const char *name)
{
    const struct hy3_shard_tensor *t;
    struct hy3_shard *shard;
    int64_t at;

    assert_ok(hy3_shard_open(hy3_golden("fp8/mixed/model.safetensors"), &shard));
    assert_non_null(t = hy3_shard_find(shard, name));
    at = t->begin;
    hy3_shard_close(shard);
    return at;
}

/* The place of a text in the header, from the entry of a tensor on. */
static int64_t text_of(const char *name, const char *text)
{
    char *file, entry[256], *at;
    int64_t place;
    size_t size;

    snprintf(entry, sizeof entry, "\"%s\"", name);
    assert_ok(
        hy3_file_read(hy3_golden("fp8/mixed/model.safetensors"), (size_t)1 << 24, &file, &size));
    assert_non_null(at = memmem(file, size, entry, strlen(entry)));
    assert_non_null(at = memmem(at, (size_t)(file + size - at), text, strlen(text)));
    place = at - file;
    hy3_free(file);
    return place;
}

static void scales_that_are_no_scales_are_refused(void **state)
{
    static const char tensor[] = "model.layers.0.self_attn.k_proj.weight_scale";
    const float bad[] = {0, -1, NAN, INFINITY};

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        refuses("element 1 of 'model.layers.0.self_attn.k_proj.weight_scale'",
                changed(data_of(tensor) + 4, &bad[i], sizeof bad[i]));
    refuses("1 with a wrong shape: model.layers.0.self_attn.k_proj.weight_scale [1, 48]",
            changed(text_of(tensor, "[48,1]"), "[1,48]", 6));
    refuses("1 without a float dtype: model.layers.0.self_attn.k_proj.weight_scale (I32)",
            changed(text_of(tensor, "\"F32\""), "\"I32\"", 5));
}

static void codes_without_scales_are_refused(void **state)
{
    static const char tensor[] = "model.layers.0.self_attn.k_proj.weight_scale";
    const char *directory = changed(text_of(tensor, "scale"), "scala", 5);

    (void)state;
    refuses("1 F8_E4M3 without scales: model.layers.0.self_attn.k_proj.weight", directory);
    refuses("1 not part of the model: model.layers.0.self_attn.k_proj.weight_scala", directory);
}

static void scales_without_codes_are_refused(void **state)
{
    (void)state;
    refuses("1 not part of the model: model.layers.0.self_attn.k_proj.weight_scale",
            changed(text_of("model.layers.0.self_attn.k_proj.weight", "\"F8_E4M3\""), "\"U8\"     ",
                    9));
}

/* What hy3_check says of a directory. */
static void finds(const char *words, const char *directory)
{
    const struct hy3_check options = {.directory = directory, .spot_check = -1};
    struct hy3_check_summary sum;
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);

    assert_non_null(out);
    assert_ok(hy3_check(MPI_COMM_SELF, &options, out, &sum));
    fclose(out);
    if (words)
        assert_non_null(strstr(text, words));
    else
        assert_string_equal(text, "");
    assert_int_equal(sum.findings, words != NULL);
    free(text);
}

static void a_check_knows_codes_and_scales(void **state)
{
    static const char tensor[] = "model.layers.0.self_attn.k_proj.weight_scale";
    const float zero = 0;

    (void)state;
    finds(NULL, hy3_golden("fp8/block"));
    finds(NULL, hy3_golden("fp8/mixed"));
    finds("k_proj.weight_scale: a scale is not above 0", changed(data_of(tensor), &zero, 4));
    finds("k_proj.weight_scale: F32 [1, 48] cannot be the scales of",
          changed(text_of(tensor, "[48,1]"), "[1,48]", 6));
    finds("q_proj.weight: contains NaN",
          changed(data_of("model.layers.0.self_attn.q_proj.weight"), "\x7f", 1));
}

static void models_in_8_bits_are_not_rewritten(void **state)
{
    const struct hy3_hf_rewrite_layout layout = {.names = HY3_OUTER};
    struct hy3_hf_plan *plan = NULL;
    struct hy3_hf_dir *dir;

    (void)state;
    assert_ok(hy3_hf_dir_open(hy3_golden("fp8/block"), &dir));
    assert_fails(HY3_EFORMAT, "models in 8 bits can be trained on and checked",
                 hy3_hf_plan_rewrite(dir, 2, &layout, &plan));
    assert_null(plan);
    hy3_hf_dir_close(dir);
}

static void a_code_that_is_nan_is_refused(void **state)
{
    (void)state;
    refuses("element 2 of tensor 'model.layers.0.self_attn.q_proj.weight' is NaN",
            changed(data_of("model.layers.0.self_attn.q_proj.weight") + 2, "\xff", 1));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_expand_as_in_transformers),
        cmocka_unit_test(every_form_and_size_expands_as_in_numpy),
        cmocka_unit_test(scales_that_are_no_scales_are_refused),
        cmocka_unit_test(codes_without_scales_are_refused),
        cmocka_unit_test(scales_without_codes_are_refused),
        cmocka_unit_test(a_code_that_is_nan_is_refused),
        cmocka_unit_test(a_check_knows_codes_and_scales),
        cmocka_unit_test(models_in_8_bits_are_not_rewritten),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
