/* SPDX-License-Identifier: Apache-2.0 */
/* hf/writer.c - what was loaded is written back bit for bit, in both layouts, three dtypes, on any
 * number of ranks; a failed writing leaves what was there before. */
#include "ckpt/hf/writer.h"

#include "base/log.h"
#include "ckpt/fixture.h"

#include <math.h>
#include <signal.h>
#include <sys/resource.h>

static struct hy3_hf_writer_options options_for(const struct model *m, const char *output,
                                                enum hy3_names names, hy3_dtype dtype,
                                                int64_t limit)
{
    return (struct hy3_hf_writer_options){.output = output,
                                          .base = m->dir,
                                          .names = names,
                                          .dtype = dtype,
                                          .max_shard_bytes = limit,
                                          .tokenizer_directory = hy3_golden("a/tokenizer")};
}

static void load_golden(struct model *m, MPI_Comm comm, hy3_dtype dtype)
{
    model_open(m, comm, hy3_golden("a/inner"), dtype);
    assert_ok(hy3_hf_load(comm, m->dir, m->store, NULL));
}

/* The written tensor that holds the inner tensor `name`, and where in it, in elements. */
static const struct hy3_shard_tensor *find_written(struct hy3_hf_dir *dir,
                                                   struct hy3_shard **shards, const char *name,
                                                   int64_t count, int *shard, int64_t *first)
{
    struct hy3_name parsed;
    int listed = hy3_hf_dir_find(dir, name);

    *first = 0;
    if (listed < 0) {
        assert_true(hy3_name_parse(name, &parsed));
        listed = hy3_hf_dir_find(dir, parsed.outer);
        if (parsed.expert >= 0)
            *first = strstr(parsed.outer, "gate_up") ? (2 * parsed.expert + parsed.part) * count
                                                     : parsed.expert * count;
    }
    if (listed < 0)
        return NULL;
    hy3_hf_dir_tensor(dir, listed, shard);
    if (!shards[*shard])
        assert_ok(hy3_hf_dir_open_shard(dir, *shard, &shards[*shard]));
    return hy3_shard_find(shards[*shard], hy3_hf_dir_tensor(dir, listed, shard));
}

/* Compares one tensor of the base with what was written: bits of the value rounded to `dtype`; what
 * is no matrix of the model is unchanged. */
static bool same_tensor(const struct hy3_shard *from, const struct hy3_shard_tensor *t,
                        const struct hy3_shard *shard, const struct hy3_shard_tensor *written,
                        int64_t first, bool is_weight, hy3_dtype dtype)
{
    hy3_dtype wanted = is_weight ? dtype : t->dtype;
    void *a, *b;
    bool same;

    if (!written || written->dtype != wanted)
        return false;
    assert_ok(hy3_alloc(&a, (size_t)t->count, 4));
    assert_ok(hy3_alloc(&b, (size_t)t->count, 4));
    assert_ok(hy3_shard_read(from, t, (struct hy3_span){0, t->count}, a, wanted));
    assert_ok(hy3_shard_read(shard, written, (struct hy3_span){first, t->count}, b, wanted));
    same = memcmp(a, b, (size_t)t->count * hy3_dtype_size(wanted)) == 0;
    hy3_free(a);
    hy3_free(b);
    return same;
}

/* Local. Every tensor of the golden model, MTP included, is in `output`, and nothing else is. */
static bool holds_golden(const struct model *m, const char *output, hy3_dtype dtype)
{
    struct hy3_shard *from, *shards[256] = {NULL};
    struct hy3_hf_dir *dir;
    int64_t elements = 0, written_elements = 0;
    bool same = true;

    assert_ok(hy3_hf_dir_open(output, &dir));
    assert_true(hy3_hf_dir_shards(dir) <= 256);
    for (int s = 0; s < hy3_hf_dir_shards(m->dir); s++) {
        assert_ok(hy3_hf_dir_open_shard(m->dir, s, &from));
        for (int i = 0; i < hy3_shard_count(from); i++) {
            const struct hy3_shard_tensor *t = hy3_shard_tensor(from, i), *written;
            struct hy3_place place;
            int64_t first;
            int shard = 0;

            written = find_written(dir, shards, t->name, t->count, &shard, &first);
            hy3_name_locate(m->params, t->name, &place);
            same = same && same_tensor(from, t, shards[shard], written, first,
                                       place.param && place.param->unit >= 0, dtype);
            elements += t->count;
        }
        hy3_shard_close(from);
    }
    for (int s = 0; s < hy3_hf_dir_shards(dir); s++) {
        if (!shards[s])
            assert_ok(hy3_hf_dir_open_shard(dir, s, &shards[s]));
        for (int i = 0; i < hy3_shard_count(shards[s]); i++)
            written_elements += hy3_shard_tensor(shards[s], i)->count;
        hy3_shard_close(shards[s]);
    }
    hy3_hf_dir_close(dir);
    return same && elements == written_elements;
}

/* Local. Whether both directories have the same shards, byte for byte, the same index and the same
 * checksums. */
static bool same_directories(const char *a, const char *b)
{
    struct hy3_hf_dir *dir;
    char x[HY3_PATH_MAX], y[HY3_PATH_MAX];
    bool same = true;

    assert_ok(hy3_hf_dir_open(a, &dir));
    for (int i = 0; i < hy3_hf_dir_shards(dir); i++) {
        snprintf(x, sizeof x, "%s/%s", a, hy3_hf_dir_shard_name(dir, i));
        snprintf(y, sizeof y, "%s/%s", b, hy3_hf_dir_shard_name(dir, i));
        same = same && same_file(x, y);
    }
    if (hy3_hf_dir_shards(dir) > 1) {
        snprintf(x, sizeof x, "%s/model.safetensors.index.json", a);
        snprintf(y, sizeof y, "%s/model.safetensors.index.json", b);
        same = same && same_file(x, y);
    }
    snprintf(x, sizeof x, "%s/config.json", a);
    snprintf(y, sizeof y, "%s/config.json", b);
    same = same && same_file(x, y);
    snprintf(x, sizeof x, "%s/checksums.json", a);
    snprintf(y, sizeof y, "%s/checksums.json", b);
    same = same && same_file(x, y);
    hy3_hf_dir_close(dir);
    return same;
}

static void write_one(MPI_Comm comm, const struct model *m, const char *name, enum hy3_names names,
                      hy3_dtype dtype, int64_t limit)
{
    struct hy3_hf_writer_options options = options_for(m, scratch(name), names, dtype, limit);

    assert_ok(hy3_hf_write(comm, &options, m->params, hy3_store_values(m->store)));
}

/* All ranks write one directory, rank 0 alone another: the files are the same, and so are the
 * values. */
static void every_layout_and_dtype_round_trips(void **state)
{
    static const int64_t limits[] = {1000, 40000, 5000000000};
    struct model all, alone;
    bool rank0 = hy3_rank(MPI_COMM_WORLD) == 0;

    (void)state;
    load_golden(&all, MPI_COMM_WORLD, HY3_FP32);
    load_golden(&alone, MPI_COMM_SELF, HY3_BF16);
    for (int names = HY3_INNER; names <= HY3_OUTER; names++)
        for (int dtype = HY3_FP32; dtype <= HY3_FP16; dtype++)
            for (int i = 0; i < 3; i++) {
                bool good = true;

                write_one(MPI_COMM_WORLD, &all, "all", (enum hy3_names)names, (hy3_dtype)dtype,
                          limits[i]);
                if (rank0) {
                    write_one(MPI_COMM_SELF, &alone, "alone", (enum hy3_names)names,
                              (hy3_dtype)dtype, limits[i]);
                    good = holds_golden(&all, scratch("all"), (hy3_dtype)dtype) &&
                           same_directories(scratch("alone"), scratch("all"));
                }
                assert_all(good);
            }
    model_close(&all);
    model_close(&alone);
}

/* inner -> outer -> inner gives the first bytes again, MTP layers included. */
static void both_conversions_are_inverse(void **state)
{
    struct model m, outer;

    (void)state;
    load_golden(&m, MPI_COMM_WORLD, HY3_BF16);
    write_one(MPI_COMM_WORLD, &m, "first", HY3_INNER, HY3_BF16, 100000);
    write_one(MPI_COMM_WORLD, &m, "outer", HY3_OUTER, HY3_BF16, 70000);
    model_open(&outer, MPI_COMM_WORLD, scratch("outer"), HY3_BF16);
    assert_all(hy3_hf_dir_names(outer.dir) == HY3_OUTER);
    assert_ok(hy3_hf_load(MPI_COMM_WORLD, outer.dir, outer.store, NULL));
    write_one(MPI_COMM_WORLD, &outer, "second", HY3_INNER, HY3_BF16, 100000);
    assert_all(hy3_rank(MPI_COMM_WORLD) != 0 || holds_golden(&m, scratch("second"), HY3_BF16));
    model_close(&m);
    model_close(&outer);
}

/* The public converter's output, by name, dtype and shape. */
static void the_outer_layout_is_that_of_the_public_converter(void **state)
{
    json_t *manifest = hy3_golden_json("a/outer_manifest.json"), *row;
    struct hy3_shard *shard;
    struct model m;
    char path[HY3_PATH_MAX];
    bool same = true;
    size_t i;

    (void)state;
    load_golden(&m, MPI_COMM_WORLD, HY3_BF16);
    write_one(MPI_COMM_WORLD, &m, "manifest", HY3_OUTER, HY3_BF16, 5000000000);
    snprintf(path, sizeof path, "%s/model.safetensors", scratch("manifest"));
    assert_ok(hy3_shard_open(path, &shard));
    assert_all(hy3_shard_count(shard) ==
               (int)json_array_size(json_object_get(manifest, "tensors")));
    json_array_foreach(json_object_get(manifest, "tensors"), i, row)
    {
        const struct hy3_shard_tensor *t =
            hy3_shard_find(shard, json_string_value(json_object_get(row, "name")));
        const json_t *extents = json_object_get(row, "shape");

        same = same && t && t->dims == (int)json_array_size(extents) &&
               strcmp(t->dtype_name, json_string_value(json_object_get(row, "dtype"))) == 0;
        for (int d = 0; same && d < t->dims; d++)
            same = t->shape[d] == json_integer_value(json_array_get(extents, (size_t)d));
    }
    assert_all(same);
    hy3_shard_close(shard);
    json_decref(manifest);
    model_close(&m);
}

static void small_files_come_along_and_the_config_keeps_its_text(void **state)
{
    struct model m;
    char path[HY3_PATH_MAX], *text;
    size_t size;

    (void)state;
    load_golden(&m, MPI_COMM_WORLD, HY3_BF16);
    write_one(MPI_COMM_WORLD, &m, "files", HY3_INNER, HY3_FP32, 5000000000);
    assert_all(hy3_path_exists(scratch("files/tokenizer.json")));
    assert_all(hy3_path_exists(scratch("files/chat_template.jinja")));
    assert_all(hy3_path_exists(scratch("files/generation_config.json")));
    assert_all(!hy3_path_exists(scratch("files/model.safetensors.index.json")));
    snprintf(path, sizeof path, "%s", scratch("files/config.json"));
    assert_ok(hy3_file_read(path, 1 << 20, &text, &size));
    assert_all(strstr(text, "\"rms_norm_eps\": 1e-5,") != NULL);
    assert_all(strstr(text, "\"rope_theta\": 11158840.0,") != NULL);
    assert_all(strstr(text, "\"dtype\": \"float32\",") != NULL);
    assert_all(strstr(text, "torch_dtype") == NULL);
    hy3_free(text);
    model_close(&m);
}

/* A second writing with fewer shards takes the place of the first; nothing of it stays. */
static void stale_shards_go_when_new_ones_are_complete(void **state)
{
    struct model m;

    (void)state;
    load_golden(&m, MPI_COMM_WORLD, HY3_BF16);
    write_one(MPI_COMM_WORLD, &m, "stale", HY3_INNER, HY3_BF16, 30000);
    assert_all(hy3_path_exists(scratch("stale/model.safetensors.index.json")));
    write_one(MPI_COMM_WORLD, &m, "stale", HY3_INNER, HY3_BF16, 5000000000);
    assert_all(!hy3_path_exists(scratch("stale/model.safetensors.index.json")));
    assert_all(hy3_rank(MPI_COMM_WORLD) != 0 || holds_golden(&m, scratch("stale"), HY3_BF16));
    write_one(MPI_COMM_WORLD, &m, "stale", HY3_OUTER, HY3_BF16, 30000);
    assert_all(!hy3_path_exists(scratch("stale/model.safetensors")));
    assert_all(hy3_rank(MPI_COMM_WORLD) != 0 || holds_golden(&m, scratch("stale"), HY3_BF16));
    model_close(&m);
}

/* Files below the directory, whose names contain `part`. */
static int count_files(const char *directory, const char *part)
{
    char command[HY3_PATH_MAX + 64], line[64] = "";
    FILE *pipe;

    snprintf(command, sizeof command, "ls '%s' | grep -c -F -- '%s'", directory, part);
    assert_non_null(pipe = popen(command, "r"));
    assert_non_null(fgets(line, sizeof line, pipe));
    pclose(pipe);
    return (int)strtol(line, NULL, 10);
}

/* A file size limit stands for a full disk. */
static void a_failed_write_leaves_the_old_model(void **state)
{
    struct rlimit old, small;
    struct hy3_hf_writer_options options;
    struct model m;
    hy3_status status;

    (void)state;
    load_golden(&m, MPI_COMM_WORLD, HY3_BF16);
    write_one(MPI_COMM_WORLD, &m, "full", HY3_INNER, HY3_BF16, 5000000000);
    options = options_for(&m, scratch("full"), HY3_OUTER, HY3_FP32, 100000);
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 50000;
    setrlimit(RLIMIT_FSIZE, &small);
    status = hy3_hf_write(MPI_COMM_WORLD, &options, m.params, hy3_store_values(m.store));
    setrlimit(RLIMIT_FSIZE, &old);
    assert_all(status == HY3_EIO);
    assert_all(strstr(hy3_error_text(), "safetensors.part") != NULL);
    assert_all(hy3_rank(MPI_COMM_WORLD) != 0 || holds_golden(&m, scratch("full"), HY3_BF16));
    assert_all(hy3_rank(MPI_COMM_WORLD) != 0 || count_files(scratch("full"), ".part") == 0);
    model_close(&m);
}

/* Every rank holds the value, one writes it: all end with the name. */
static void a_value_that_is_not_finite_is_never_saved(void **state)
{
    struct hy3_hf_writer_options options;
    const struct hy3_param *p;
    struct model m;
    float bad = (float)NAN;
    hy3_status status;

    (void)state;
    load_golden(&m, MPI_COMM_WORLD, HY3_BF16);
    write_one(MPI_COMM_WORLD, &m, "nan", HY3_INNER, HY3_BF16, 5000000000);
    p = hy3_params_find(m.params, HY3_P_EXPERT_DOWN, 2);
    assert_ok(
        hy3_store_put(m.store, p, (struct hy3_span){p->count / 8 * 3 + 7, 1}, &bad, HY3_FP32));
    options = options_for(&m, scratch("nan"), HY3_INNER, HY3_BF16, 100000);
    status = hy3_hf_write(MPI_COMM_WORLD, &options, m.params, hy3_store_values(m.store));
    assert_all(status == HY3_EDIVERGED);
    assert_all(strstr(hy3_error_text(), "model.layers.2.mlp.experts.3.down_proj.weight") != NULL);
    assert_all(hy3_rank(MPI_COMM_WORLD) != 0 || holds_golden(&m, scratch("nan"), HY3_BF16));
    assert_all(hy3_rank(MPI_COMM_WORLD) != 0 || count_files(scratch("nan"), ".part") == 0);
    bad = 1e6f; /* fits bf16, not fp16 */
    assert_ok(
        hy3_store_put(m.store, p, (struct hy3_span){p->count / 8 * 3 + 7, 1}, &bad, HY3_FP32));
    options = options_for(&m, scratch("nan"), HY3_OUTER, HY3_FP16, 100000);
    status = hy3_hf_write(MPI_COMM_WORLD, &options, m.params, hy3_store_values(m.store));
    assert_all(status == HY3_EDIVERGED);
    assert_all(strstr(hy3_error_text(), "as fp16") != NULL);
    model_close(&m);
}

static void a_base_without_one_expert_of_its_mtp_layer_cannot_become_outer(void **state)
{
    struct hy3_hf_writer_options options;
    char path[HY3_PATH_MAX];
    json_t *index;
    struct model m, bad;

    (void)state;
    load_golden(&m, MPI_COMM_WORLD, HY3_BF16);
    if (hy3_rank(MPI_COMM_WORLD) == 0) {
        copy_golden(scratch("mtp"));
        snprintf(path, sizeof path, "%s/model.safetensors.index.json", scratch("mtp"));
        assert_ok(hy3_json_read(path, 1 << 20, &index));
        json_object_del(json_object_get(index, "weight_map"),
                        "model.layers.3.mlp.experts.0.gate_proj.weight");
        assert_ok(hy3_json_write(path, index));
        json_decref(index);
    }
    hy3_barrier(MPI_COMM_WORLD, "testing");
    model_open(&bad, MPI_COMM_WORLD, scratch("mtp"), HY3_BF16);
    options = options_for(&bad, scratch("mtp-out"), HY3_OUTER, HY3_BF16, 100000);
    assert_all(hy3_hf_write(MPI_COMM_WORLD, &options, m.params, hy3_store_values(m.store)) ==
               HY3_EFORMAT);
    assert_all(strstr(hy3_error_text(), "model.layers.3.mlp.experts.0.gate_proj.weight") != NULL);
    assert_all(!hy3_path_exists(scratch("mtp-out")));
    model_close(&bad);
    model_close(&m);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layout_and_dtype_round_trips),
        cmocka_unit_test(both_conversions_are_inverse),
        cmocka_unit_test(the_outer_layout_is_that_of_the_public_converter),
        cmocka_unit_test(small_files_come_along_and_the_config_keeps_its_text),
        cmocka_unit_test(stale_shards_go_when_new_ones_are_complete),
        cmocka_unit_test(a_failed_write_leaves_the_old_model),
        cmocka_unit_test(a_value_that_is_not_finite_is_never_saved),
        cmocka_unit_test(a_base_without_one_expert_of_its_mtp_layer_cannot_become_outer),
    };
    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
