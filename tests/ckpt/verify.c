/* SPDX-License-Identifier: Apache-2.0 */
/* hf/verify.c - no flipped bit of a model or an adapter passes its checksums, and what others write
 * as checksums.json or as a list ends in one message. */
#include "ckpt/hf/verify.h"

#include "base/random.h"
#include "ckpt/adapter/adapter.h"
#include "ckpt/adapter/check.h"
#include "ckpt/adapter/writer.h"
#include "ckpt/fixture.h"
#include "ckpt/hf/check.h"
#include "ckpt/hf/checksums.h"

#include <dirent.h>
#include <fcntl.h>

/* Findings in a directory, 1 also for what ends the check. */
typedef int64_t (*checker)(const char *directory, FILE *out);

static int64_t check_model(const char *directory, FILE *out)
{
    struct hy3_check options = {.directory = directory, .spot_check = -1};
    struct hy3_check_summary sum;

    return hy3_check(MPI_COMM_SELF, &options, out, &sum) == HY3_OK ? sum.findings : 1;
}

static int64_t check_adapter(const char *directory, FILE *out)
{
    struct hy3_adapter_check_summary sum;

    return hy3_adapter_check(directory, NULL, out, &sum) == HY3_OK ? sum.findings : 1;
}

static int is_file(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

/* Flips bit after bit, in each file of the directory in turn. */
static void every_flip_is_found(const char *directory, checker check)
{
    const char *flips = getenv("HY3_FLIPS");
    struct dirent **names;
    int count = scandir(directory, &names, is_file, alphasort);
    FILE *out = fopen("/dev/null", "w");

    assert_true(count > 5);
    assert_int_equal(check(directory, out), 0);
    for (int64_t i = 0; i < (flips ? strtol(flips, NULL, 10) : 100); i++) {
        const char *name = names[i % count]->d_name;
        char path[HY3_PATH_MAX], byte, flipped;
        uint32_t word[4];
        int64_t bytes, at;
        int fd;

        snprintf(path, sizeof path, "%s/%s", directory, name);
        assert_ok(hy3_file_size(path, &bytes));
        assert_true((fd = open(path, O_RDWR | O_CLOEXEC)) >= 0);
        hy3_random(7, 0, 0, (uint64_t)i, word);
        at = (int64_t)(word[0] % (uint64_t)bytes);
        assert_int_equal(pread(fd, &byte, 1, at), 1);
        flipped = (char)(byte ^ (1 << word[1] % 8));
        assert_int_equal(pwrite(fd, &flipped, 1, at), 1);
        if (check(directory, out) == 0)
            fail_msg("%s: bit %u of byte %lld", name, word[1] % 8, (long long)at);
        assert_int_equal(pwrite(fd, &byte, 1, at), 1);
        close(fd);
    }
    assert_int_equal(check(directory, out), 0);
    fclose(out);
    for (int i = 0; i < count; i++)
        free(names[i]);
    free(names);
}

static void write_model(const char *directory)
{
    struct model m;
    struct hy3_hf_writer_options options = {.output = directory,
                                            .names = HY3_INNER,
                                            .dtype = HY3_BF16,
                                            .max_shard_bytes = 200000,
                                            .tokenizer_directory = hy3_golden("a/tokenizer")};

    model_open(&m, MPI_COMM_SELF, hy3_golden("a/inner"), HY3_BF16);
    options.base = m.dir;
    assert_ok(hy3_hf_load(MPI_COMM_SELF, m.dir, m.store, NULL));
    assert_ok(hy3_hf_write(MPI_COMM_SELF, &options, m.params, hy3_store_values(m.store)));
    model_close(&m);
}

static void no_flipped_bit_of_a_model_is_missed(void **state)
{
    (void)state;
    write_model(scratch("model"));
    every_flip_is_found(scratch("model"), check_model);
}

static hy3_status get(void *of, enum hy3_field field, const struct hy3_param *p,
                      struct hy3_span span, float *out)
{
    (void)of;
    (void)field;
    for (int64_t i = 0; i < span.count; i++)
        out[i] = (float)((span.first + i) % 11 + p->layer) / 64;
    return HY3_OK;
}

static struct hy3_span share(void *of, const struct hy3_param *p)
{
    (void)of;
    return (struct hy3_span){0, p->count};
}

static void no_flipped_bit_of_an_adapter_is_missed(void **state)
{
    struct hy3_adapter_writer options = {.output = scratch("adapter"),
                                         .base_path = scratch("nowhere"),
                                         .base_fingerprint = "0123456789abcdef",
                                         .tokenizer_directory = hy3_golden("a/tokenizer")};
    struct hy3_adapter *golden;
    struct hy3_params *params;
    struct hy3_shape shape;

    (void)state;
    assert_ok(hy3_shape_open(hy3_golden("a/inner/config.json"), &shape));
    assert_ok(hy3_params_create(&shape, 0, shape.experts, &params));
    assert_ok(hy3_adapter_open(hy3_golden("a/adapter/final"), params, &golden));
    assert_ok(hy3_params_add_adapter(params, hy3_adapter_lora(golden)));
    assert_ok(hy3_adapter_write(MPI_COMM_SELF, &options, params,
                                (struct hy3_values){.get = get, .share = share}));
    every_flip_is_found(scratch("adapter"), check_adapter);
    hy3_adapter_close(golden);
    hy3_params_free(params);
}

/* Findings of a check, and their text; the caller frees it. */
static int64_t findings(const struct hy3_check *options, char **text)
{
    struct hy3_check_summary sum;
    size_t size;
    FILE *out = open_memstream(text, &size);

    assert_ok(hy3_check(MPI_COMM_SELF, options, out, &sum));
    fclose(out);
    return sum.findings;
}

static void finds(const struct hy3_check *options, int64_t count, const char *words)
{
    char *text;
    int64_t found = findings(options, &text);

    if (found != count || !strstr(text, words))
        fail_msg("expected %lld findings and '%s', found:\n%s", (long long)count, words, text);
    free(text);
}

#define ZEROS                                                                \
    "\"sha256\": \"00000000000000000000000000000000000000000000000000000000" \
    "00000000\""

static void a_hostile_file_of_checksums_is_one_finding(void **state)
{
    static const char *const cases[][2] = {
        {"", "not valid JSON"},
        {"[]", "the top level must be an object"},
        {"{\"files\": {}}", "'version' is missing"},
        {"{\"files\": {}, \"version\": 2}", "it must be 1 to 1"},
        {"{\"files\": {}, \"version\": 1, \"x\": 1}", "the key 'x' is unknown"},
        {"{\"files\": [], \"version\": 1}", "'files' must be an object"},
        {"{\"files\": {\"../x\": {}}, \"version\": 1}", "'../x' is not the name of a file"},
        {"{\"files\": {\"\": {}}, \"version\": 1}", "'' is not the name of a file"},
        {"{\"files\": {\"..\": {}}, \"version\": 1}", "'..' is not the name of a file"},
        {"{\"files\": {\"checksums.json\": {}}, \"version\": 1}", "is not the name of a file"},
        {"{\"files\": {\"x\": 3}, \"version\": 1}", "file 'x': its entry is not an object"},
        {"{\"files\": {\"x\": {\"size\": -1}}, \"version\": 1}", "file 'x': 'size' is -1"},
        {"{\"files\": {\"x\": {\"size\": \"1\"}}, \"version\": 1}", "must be an integer"},
        {"{\"files\": {\"x\": {\"size\": 1, \"sha256\": 5}}, \"version\": 1}", "'sha256' must be"},
        {"{\"files\": {\"x\": {\"size\": 1, \"sha256\": \"00\"}}, \"version\": 1}", "64 digits"},
        {"{\"files\": {\"x\": {\"size\": 1, " ZEROS ", \"y\": 1}}, \"version\": 1}",
         "the key 'y' is unknown"},
        {"{\"files\": {\"x.safetensors\": {\"size\": 1, " ZEROS "}}, \"version\": 1}",
         "'tensors' must be an object"},
        {"{\"files\": {\"x\": {\"size\": 1, " ZEROS ", \"tensors\": {\"t\": \"00\"}}}, "
         "\"version\": 1}",
         "the checksum of tensor 't' is not a text of 16 digits"},
        {"{\"files\": {\"x\": {\"size\": 1, " ZEROS "}}, \"version\": 1}", "x: missing"},
    };
    struct hy3_check options = {.directory = scratch("hostile"), .spot_check = -1};
    char path[HY3_PATH_MAX];

    (void)state;
    copy_golden(scratch("hostile"));
    snprintf(path, sizeof path, "%s", scratch("hostile/" HY3_CHECKSUMS));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_ok(hy3_output_replace(path, cases[i][0], strlen(cases[i][0])));
        finds(&options, 1, cases[i][1]);
    }
    assert_int_equal(truncate(path, (off_t)1 << 30), 0);
    finds(&options, 1, HY3_CHECKSUMS);
    unlink(path);
    assert_int_equal(mkfifo(path, 0666), 0);
    finds(&options, 1, HY3_CHECKSUMS);
    unlink(path);
}

/* Two shards whose entries have changed places: names of tensors and of files disagree. */
static void tensors_that_checksums_do_not_name_are_found(void **state)
{
    struct hy3_check options = {.directory = scratch("names"), .spot_check = 0};
    json_t *files, *first, *second;
    char path[HY3_PATH_MAX], *text;

    (void)state;
    snprintf(path, sizeof path, "%s", options.directory);
    write_model(path);
    assert_ok(hy3_checksums_read(path, &files));
    first = json_incref(json_object_get(files, "model-00001-of-00003.safetensors"));
    second = json_incref(json_object_get(files, "model-00002-of-00003.safetensors"));
    json_object_set_new(files, "model-00001-of-00003.safetensors", second);
    json_object_set_new(files, "model-00002-of-00003.safetensors", first);
    assert_ok(hy3_checksums_write(path, files));
    json_decref(files);
    assert_true(findings(&options, &text) > 4);
    assert_non_null(strstr(text,
                           "model-00001-of-00003.safetensors: model.embed_tokens.weight: "
                           "not listed in checksums.json"));
    assert_non_null(strstr(text,
                           "model-00002-of-00003.safetensors: model.embed_tokens.weight: "
                           "listed in checksums.json, missing in the shard"));
    assert_non_null(strstr(text, "bytes long, checksums.json says"));
    free(text);
}

static void write_list(const char *text)
{
    char path[HY3_PATH_MAX];

    snprintf(path, sizeof path, "%s", scratch("list"));
    assert_ok(hy3_output_replace(path, text, strlen(text)));
}

static void lists_are_read_in_the_forms_that_are_published(void **state)
{
    static const char digest[] = "0123456789abcdef0123456789ABCDEF0123456789abcdef0123456789abcdef";
    char text[1024];
    json_t *files;

    (void)state;
    snprintf(text, sizeof text, "# made by hand\r\n%s  a b\r\n\n%s *./c", digest, digest);
    write_list(text);
    assert_ok(hy3_checksums_read_list(scratch("list"), &files));
    assert_int_equal(json_object_size(files), 2);
    assert_string_equal(json_string_value(json_object_get(json_object_get(files, "a b"), "sha256")),
                        "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
    assert_non_null(json_object_get(files, "c"));
    json_decref(files);
    snprintf(text, sizeof text, "%s  a\n%s  a\n", digest, digest);
    write_list(text);
    assert_fails(HY3_EFORMAT, "list:2: 'a' is listed twice",
                 hy3_checksums_read_list(scratch("list"), &files));
    snprintf(text, sizeof text, "%s  dir/a\n", digest);
    write_list(text);
    assert_fails(HY3_EFORMAT, "list:1: 'dir/a' is not the name of a file in the directory",
                 hy3_checksums_read_list(scratch("list"), &files));
    snprintf(text, sizeof text, "%s  \xff\n", digest);
    write_list(text);
    assert_fails(HY3_EFORMAT, "not valid UTF-8", hy3_checksums_read_list(scratch("list"), &files));
    for (size_t i = 0; i <= strlen(digest) + 2; i++) { /* cut off anywhere before the name */
        snprintf(text, sizeof text, "%s  ", digest);
        text[i] = '\0';
        write_list(text);
        assert_fails(HY3_EFORMAT, i == 0 ? "no file is listed" : "not of the form",
                     hy3_checksums_read_list(scratch("list"), &files));
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_flipped_bit_of_a_model_is_missed),
        cmocka_unit_test(no_flipped_bit_of_an_adapter_is_missed),
        cmocka_unit_test(a_hostile_file_of_checksums_is_one_finding),
        cmocka_unit_test(tensors_that_checksums_do_not_name_are_found),
        cmocka_unit_test(lists_are_read_in_the_forms_that_are_published),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
