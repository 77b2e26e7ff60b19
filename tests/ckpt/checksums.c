/* SPDX-License-Identifier: Apache-2.0 */
/* hf/assemble.c, hf/checksums.c - shards are brought together byte for byte on any number of ranks
 * in pieces of any size, and checksums.json says what sha256sum and XXH3 say of the files. */
#include "ckpt/hf/checksums.h"

#include "ckpt/fixture.h"
#include "ckpt/hf/assemble.h"

#include <dirent.h>
#include <sys/stat.h>
#include <xxhash.h>

static struct hy3_hf_writer_options options_for(const struct model *m, const char *output,
                                                int64_t limit)
{
    return (struct hy3_hf_writer_options){.output = output,
                                          .base = m->dir,
                                          .names = HY3_OUTER,
                                          .dtype = HY3_BF16,
                                          .max_shard_bytes = limit,
                                          .tokenizer_directory = hy3_golden("a/tokenizer")};
}

static void load_golden(struct model *m)
{
    model_open(m, MPI_COMM_WORLD, hy3_golden("a/inner"), HY3_BF16);
    assert_ok(hy3_hf_load(MPI_COMM_WORLD, m->dir, m->store, NULL));
}

static void write_golden(const struct model *m, const char *name, int64_t limit)
{
    struct hy3_hf_writer_options options = options_for(m, scratch(name), limit);

    assert_ok(hy3_hf_write(MPI_COMM_WORLD, &options, m->params, hy3_store_values(m->store)));
    hy3_barrier(MPI_COMM_WORLD, "testing");
}

/* Collective. Whether this rank's pieces, one after the other, are its shards in `directory`. */
static bool assembles(const struct model *m, const struct hy3_hf_plan *plan, const char *directory,
                      int64_t size)
{
    struct hy3_assembly *assembly;
    struct hy3_assembled piece;
    int64_t next = 0, own = 0, bytes = 0;
    bool same = true;

    for (int i = 0; i < plan->file_count; i++)
        if (hy3_assembly_owner(plan, i, hy3_size(MPI_COMM_WORLD)) == hy3_rank(MPI_COMM_WORLD))
            own += plan->files[i].bytes;
    assert_ok(
        hy3_assembly_create(MPI_COMM_WORLD, plan, hy3_store_values(m->store), size, &assembly));
    for (int64_t i = 0; i < hy3_assembly_rounds(assembly); i++) {
        char path[HY3_PATH_MAX], written[1 << 16];
        int fd;

        assert_ok(hy3_assembly_round(assembly, HY3_OK, &piece));
        if (piece.bytes == 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", directory, piece.file->name);
        assert_ok(hy3_file_open(path, &fd));
        assert_ok(hy3_file_read_at(fd, written, (size_t)piece.bytes, piece.at, path));
        close(fd);
        same = same && piece.at == next && memcmp(written, piece.data, (size_t)piece.bytes) == 0;
        next = piece.at + piece.bytes;
        next = next == piece.file->bytes ? 0 : next;
        bytes += piece.bytes;
    }
    hy3_assembly_free(assembly);
    return same && bytes == own;
}

static void pieces_of_any_size_are_the_bytes_of_the_shards(void **state)
{
    static const int64_t sizes[] = {1 << 16, 4096, 1000};
    static const int64_t limits[] = {INT64_MAX, 200000, 20000}; /* also more shards than ranks */
    struct hy3_hf_writer_options options;
    struct hy3_hf_plan *plan;
    struct model m;

    (void)state;
    load_golden(&m);
    for (int i = 0; i < 3; i++) {
        write_golden(&m, "whole", limits[i]);
        options = options_for(&m, scratch("whole"), limits[i]);
        assert_ok(hy3_hf_plan_create(&options, m.params, &plan));
        for (int j = 0; j < 3; j++)
            assert_all(assembles(&m, plan, scratch("whole"), sizes[j]));
        hy3_hf_plan_free(plan);
    }
    model_close(&m);
}

/* What one rank's work ends with ends the rounds of all. */
static void a_failure_of_one_rank_ends_the_rounds(void **state)
{
    struct hy3_hf_writer_options options;
    struct hy3_assembly *assembly;
    struct hy3_assembled piece;
    struct hy3_hf_plan *plan;
    struct model m;
    hy3_status mine = HY3_OK;

    (void)state;
    load_golden(&m);
    options = options_for(&m, scratch("none"), 100000);
    assert_ok(hy3_hf_plan_create(&options, m.params, &plan));
    assert_ok(
        hy3_assembly_create(MPI_COMM_WORLD, plan, hy3_store_values(m.store), 4096, &assembly));
    if (hy3_rank(MPI_COMM_WORLD) == hy3_size(MPI_COMM_WORLD) - 1)
        mine = hy3_fail(HY3_EIO, __FILE__, __LINE__, "the disk has gone");
    assert_all(hy3_assembly_round(assembly, mine, &piece) == HY3_EIO);
    assert_all(strstr(hy3_error_text(), "the disk has gone") != NULL);
    hy3_assembly_free(assembly);
    hy3_hf_plan_free(plan);
    model_close(&m);
}

/* The digest that sha256sum prints. */
static void sha256sum(const char *path, char text[HY3_SHA256_TEXT])
{
    char command[HY3_PATH_MAX + 64];
    FILE *pipe;

    snprintf(command, sizeof command, "sha256sum '%s'", path);
    assert_non_null(pipe = popen(command, "r"));
    assert_int_equal(fread(text, 1, HY3_SHA256_TEXT - 1, pipe), HY3_SHA256_TEXT - 1);
    text[HY3_SHA256_TEXT - 1] = '\0';
    pclose(pipe);
}

static bool tensors_are_right(const char *path, const json_t *entry)
{
    struct hy3_shard *shard;
    bool right;

    assert_ok(hy3_shard_open(path, &shard));
    right = (size_t)hy3_shard_count(shard) == json_object_size(json_object_get(entry, "tensors"));
    for (int i = 0; i < hy3_shard_count(shard); i++) {
        const struct hy3_shard_tensor *t = hy3_shard_tensor(shard, i);
        char *data;

        assert_ok(hy3_alloc(&data, (size_t)t->bytes, 1));
        assert_ok(hy3_shard_read_raw(shard, t, 0, t->bytes, data));
        right = right && hy3_checksums_has(entry, t->name, XXH3_64bits(data, (size_t)t->bytes)) &&
                !hy3_checksums_has(entry, t->name, XXH3_64bits(data, (size_t)t->bytes) ^ 1);
        hy3_free(data);
    }
    hy3_shard_close(shard);
    return right;
}

/* Files of the directory, but checksums.json. */
static size_t count_files(const char *directory)
{
    struct dirent *entry;
    DIR *files = opendir(directory);
    size_t count = 0;

    assert_non_null(files);
    while ((entry = readdir(files)))
        count += entry->d_name[0] != '.' && strcmp(entry->d_name, HY3_CHECKSUMS) != 0;
    closedir(files);
    return count;
}

/* Local. Whether checksums.json lists every file of the directory, with what it has. */
static bool checksums_are_right(const char *directory)
{
    json_t *files, *entry;
    const char *name;
    bool right;

    assert_ok(hy3_checksums_read(directory, &files));
    assert_non_null(files);
    right = json_object_size(files) == count_files(directory);
    json_object_foreach(files, name, entry)
    {
        char path[HY3_PATH_MAX], text[HY3_SHA256_TEXT];
        int64_t size;

        snprintf(path, sizeof path, "%s/%s", directory, name);
        assert_ok(hy3_file_size(path, &size));
        sha256sum(path, text);
        right = right && size == json_integer_value(json_object_get(entry, "size")) &&
                strcmp(text, json_string_value(json_object_get(entry, "sha256"))) == 0;
        if (hy3_ends_with(name, ".safetensors"))
            right = right && tensors_are_right(path, entry);
    }
    json_decref(files);
    return right;
}

static void checksums_are_those_of_the_files(void **state)
{
    bool rank0 = hy3_rank(MPI_COMM_WORLD) == 0;
    struct model m;

    (void)state;
    load_golden(&m);
    write_golden(&m, "one", INT64_MAX);
    assert_all(!rank0 || checksums_are_right(scratch("one")));
    write_golden(&m, "many", 200000);
    assert_all(!rank0 || checksums_are_right(scratch("many")));
    model_close(&m);
}

/* A write that fails while it gives the files their names: what was changed is listed nowhere. */
static void old_checksums_never_stand_beside_new_files(void **state)
{
    struct hy3_hf_writer_options options;
    char path[HY3_PATH_MAX];
    struct model m;

    (void)state;
    load_golden(&m);
    write_golden(&m, "fails", INT64_MAX);
    options = options_for(&m, scratch("fails"), INT64_MAX);
    snprintf(path, sizeof path, "%s/model.safetensors", scratch("fails"));
    assert_all(hy3_path_exists(scratch("fails/" HY3_CHECKSUMS)));
    if (hy3_rank(MPI_COMM_WORLD) == 0) {
        assert_int_equal(unlink(path), 0);
        assert_int_equal(mkdir(path, 0777), 0); /* in the way */
    }
    assert_all(hy3_hf_write(MPI_COMM_WORLD, &options, m.params, hy3_store_values(m.store)) ==
               HY3_EIO);
    assert_all(!hy3_path_exists(scratch("fails/" HY3_CHECKSUMS)));
    model_close(&m);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pieces_of_any_size_are_the_bytes_of_the_shards),
        cmocka_unit_test(a_failure_of_one_rank_ends_the_rounds),
        cmocka_unit_test(checksums_are_those_of_the_files),
        cmocka_unit_test(old_checksums_never_stand_beside_new_files),
    };
    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
