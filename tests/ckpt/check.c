/* SPDX-License-Identifier: Apache-2.0 */
/* check.c - many kinds of damage to a good checkpoint: each is found and named. */
#include "ckpt/hf/check.h"

#include "ckpt/fixture.h"
#include "ckpt/hf/safetensors.h"

#include <fcntl.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[1024];

static const char *in(const char *name)
{
    static char paths[2][HY3_PATH_MAX + 64];
    static int turn;
    char *path = paths[turn++ % 2];

    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

/* Makes the directory a copy of the golden checkpoint. */
static void restore(void)
{
    if (directory[0] == '\0')
        snprintf(directory, sizeof directory, "%s/model", hy3_test_directory());
    copy_golden(directory);
}

/* The findings as one text; the caller frees it. */
static char *check(int64_t spot_check, struct hy3_check_summary *sum)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    struct hy3_check options = {.directory = directory, .spot_check = spot_check};

    assert_ok(hy3_check(MPI_COMM_SELF, &options, out, sum));
    fclose(out);
    return text;
}

static void finds(const char *first, const char *second)
{
    struct hy3_check_summary sum;
    char *text = check(-1, &sum), *line = strstr(text, first);

    if (!line || !strstr(text, second) || sum.findings < 1)
        fail_msg("expected '%s' and '%s', found:\n%s", first, second, text);
    free(text);
    restore();
}

/* Replaces a text of a file by another, of the same length if it stands in a shard's header. */
static void replace(const char *file, const char *old, const char *new)
{
    char *text, *at, *changed;
    size_t size, before;

    assert_ok(hy3_file_read(in(file), 1 << 24, &text, &size));
    assert_non_null(at = memmem(text, size, old, strlen(old)));
    before = (size_t)(at - text);
    assert_ok(hy3_alloc(&changed, size + strlen(new), 1));
    memcpy(changed, text, before);
    memcpy(changed + before, new, strlen(new));
    memcpy(changed + before + strlen(new), at + strlen(old), size - before - strlen(old));
    assert_ok(hy3_output_replace(in(file), changed, size - strlen(old) + strlen(new)));
    hy3_free(changed);
    hy3_free(text);
}

/* Writes over the bytes of a tensor from byte `from` on. */
static void overwrite(const char *file, const char *tensor, int64_t from, const void *data,
                      size_t size)
{
    struct hy3_shard *shard;
    int64_t begin;
    int fd;

    assert_ok(hy3_shard_open(in(file), &shard));
    begin = hy3_shard_find(shard, tensor)->begin;
    hy3_shard_close(shard);
    assert_true((fd = open(in(file), O_WRONLY)) >= 0);
    assert_ok(hy3_file_write_at(fd, data, size, begin + from, file));
    close(fd);
}

#define INDEX  "model.safetensors.index.json"
#define SHARD1 "model-00001-of-00005.safetensors"
#define SHARD2 "model-00002-of-00005.safetensors"
#define SHARD5 "model-00005-of-00005.safetensors"

static void a_good_checkpoint_has_no_finding(void **state)
{
    struct hy3_check_summary sum;
    char *text;

    (void)state;
    restore();
    text = check(-1, &sum);
    assert_string_equal(text, "");
    assert_true(sum.findings == 0 && sum.tensors == 129 && sum.read == 129 && sum.shards == 5);
    free(text);
    text = check(10, &sum);
    assert_true(sum.findings == 0 && sum.read == 10);
    free(text);
    text = check(0, &sum);
    assert_true(sum.findings == 0 && sum.read == 0);
    free(text);
}

static void damage_to_config_is_found(void **state)
{
    (void)state;
    restore();
    unlink(in("config.json"));
    finds("config.json", "");
    assert_ok(hy3_output_replace(in("config.json"), "{", 1));
    finds("config.json:1", "");
    replace("config.json", "\"hidden_size\": 40", "\"hidden_size\": 0");
    finds("config.json", "hidden_size");
    replace("config.json", "\"num_experts\": 8,", "");
    finds("config.json", "num_experts");
    replace("config.json", "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4");
    finds("model.layers.4.", "missing");
    replace("config.json", "\"num_experts\": 8", "\"num_experts\": 9");
    finds("model.layers.1.mlp.experts.8.gate_proj.weight: missing", "router");
    replace("config.json", "\"vocab_size\": 1984", "\"vocab_size\": 1985");
    finds("model.embed_tokens.weight: the shape is [1984, 40], it must be [1985, 40]",
          "lm_head.weight");
    replace("config.json", "\"dtype\": \"bfloat16\"", "\"dtype\": \"float16\"");
    finds("the dtype is BF16, config.json says F16", "model.norm.weight");
}

static void damage_to_the_index_is_found(void **state)
{
    (void)state;
    restore();
    unlink(in(INDEX));
    finds("5 safetensors files but no 'model.safetensors.index.json'", "");
    replace(INDEX, "\"weight_map\"", "\"weight_mop\"");
    finds("'weight_map' is missing", INDEX);
    assert_ok(hy3_output_replace(in(INDEX), "{\"metadata\": {}", 15));
    finds(INDEX ":1", "JSON");
    replace(INDEX, "563232", "563233");
    finds("the index says 563233 bytes", "563232");
    replace(INDEX, "\"model.norm.weight\": \"" SHARD5, "\"model.norm.weight\": \"" SHARD1);
    finds(SHARD5 ": model.norm.weight: listed by the index for " SHARD1,
          SHARD1 ": model.norm.weight: listed by the index, missing in the shard");
    replace(INDEX, "\"model.norm.weight\"", "\"model.nurm.weight\"");
    finds(SHARD5 ": model.norm.weight: not listed by the index", "model.nurm.weight");
    replace(INDEX, "\"" SHARD5, "\"../" SHARD5);
    finds(INDEX, "../");
    replace(INDEX, "lm_head.weight\": \"" SHARD5 "\"", "lm_head.weight\": 5");
    finds(INDEX, "lm_head.weight");
}

static void damage_to_shards_is_found(void **state)
{
    (void)state;
    restore();
    unlink(in(SHARD2));
    finds(SHARD2, "not in the directory");
    assert_ok(hy3_output_replace(in(SHARD2), "", 0));
    finds(SHARD2, "");
    assert_ok(hy3_output_replace(in(SHARD2), "\x08\0\0\0\0\0\0\0{}      ", 16));
    finds(SHARD2 ": model.layers.1.mlp.experts.3.gate_proj.weight: listed by the index, missing in",
          "model.layers.1.mlp.experts.3.gate_proj.weight: missing");
    assert_int_equal(truncate(in(SHARD5), 100000), 0);
    finds(SHARD5, "");
    assert_int_equal(truncate(in(SHARD5), 5), 0);
    finds(SHARD5, "");
    assert_ok(hy3_output_copy(in(SHARD2), in("model-00006-of-00005.safetensors")));
    finds("model-00006-of-00005.safetensors: the index lists no tensor of this shard", "");
    unlink(in("model-00006-of-00005.safetensors"));
    assert_ok(hy3_output_copy(in(SHARD2), in("model-00006-of-00005.safetensors.part")));
    finds("model-00006-of-00005.safetensors.part: left by an interrupted write", "");
    unlink(in("model-00006-of-00005.safetensors.part"));
    assert_int_equal(rename(in(SHARD1), in("x")), 0); /* two shards change places */
    assert_int_equal(rename(in(SHARD5), in(SHARD1)), 0);
    assert_int_equal(rename(in("x"), in(SHARD5)), 0);
    finds(SHARD1 ": lm_head.weight: listed by the index for " SHARD5, "model.embed_tokens.weight");
    unlink(in("x"));
}

static void damage_to_tensors_is_found(void **state)
{
    const uint16_t not_a_number = 0x7fc0, infinity = 0xff80;
    const float wide = INFINITY;

    (void)state;
    restore();
    overwrite(SHARD5, "lm_head.weight", 2 * 777, &not_a_number, 2);
    finds(SHARD5 ": lm_head.weight: contains NaN or infinity", "");
    overwrite(SHARD1, "model.layers.1.mlp.experts.0.up_proj.weight", 0, &infinity, 2);
    finds(SHARD1 ": model.layers.1.mlp.experts.0.up_proj.weight: contains NaN", "");
    overwrite(SHARD5, "model.layers.3.mlp.expert_bias", 28, &wide, 4);
    finds("model.layers.3.mlp.expert_bias: contains NaN", SHARD5);
    overwrite(SHARD5, "model.layers.3.eh_proj.weight", 2 * 3199, &infinity, 2);
    finds("model.layers.3.eh_proj.weight: contains NaN", SHARD5);
    replace(SHARD5, "[1984,40]", "[40,1984]");
    finds("lm_head.weight: the shape is [40, 1984], it must be [1984, 40]", SHARD5);
    replace(SHARD5, "model.layers.3.eh_proj", "model.layers.3.ehxproj");
    finds("model.layers.3.ehxproj.weight: not listed by the index",
          "model.layers.3.eh_proj.weight: missing");
    replace(SHARD5, "model.norm.weight",
            "model.\\u001bm.wei"); /* an escape: it must not reach a terminal */
    finds(SHARD5 ": model.?m.wei: not listed by the index", "model.norm.weight: missing");
    replace(SHARD1, "layers.1.mlp.experts.0.up_proj", "layers.1.mlp.experts.0.UP_proj");
    replace(INDEX, "layers.1.mlp.experts.0.up_proj", "layers.1.mlp.experts.0.UP_proj");
    finds("model.layers.1.mlp.experts.0.UP_proj.weight: not a tensor of this model",
          "model.layers.1.mlp.experts.0.up_proj.weight: missing");
    replace(SHARD1, "\"dtype\":\"BF16\",\"shape\":[1984,40]",
            "\"dtype\":\"F16\", \"shape\":[1984,40]");
    finds("model.embed_tokens.weight: the dtype is F16, config.json says BF16", SHARD1);
    replace(SHARD1, "\"dtype\":\"BF16\",\"shape\":[1984,40]",
            "\"dtype\":\"I16\", \"shape\":[1984,40]");
    finds("model.embed_tokens.weight: the dtype is I16", SHARD1);
    replace(SHARD1, "model.layers.1.mlp.experts.1.up_proj", "model.layers.1.mlp.experts.0.up_proj");
    finds("model.layers.1.mlp.experts.", "");
    replace(SHARD1, "model.layers.1.mlp.router.gate.weight",
            "model.layers.0.mlp.router.gate.weight");
    finds("model.layers.0.mlp.router.gate.weight: not listed by the index",
          "model.layers.1.mlp.router.gate.weight: missing");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_checkpoint_has_no_finding),
        cmocka_unit_test(damage_to_config_is_found),
        cmocka_unit_test(damage_to_the_index_is_found),
        cmocka_unit_test(damage_to_shards_is_found),
        cmocka_unit_test(damage_to_tensors_is_found),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
