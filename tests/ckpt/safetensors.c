/* SPDX-License-Identifier: Apache-2.0 */
/* safetensors.c - hostile headers are refused by name; values arrive in every dtype. */
#include "ckpt/hf/safetensors.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "support/test.h"

#include <math.h>
#include <sys/wait.h>
#include <unistd.h>

static void every_hostile_file_is_judged_as_the_golden_list_says(void **state)
{
    json_t *list = hy3_golden_json("a/bad_inputs.json"), *row;
    int judged = 0;
    size_t i;

    (void)state;
    json_array_foreach(json_object_get(list, "files"), i, row)
    {
        const char *file = json_string_value(json_object_get(row, "file"));
        const char *expect = json_string_value(json_object_get(row, "expect"));
        char name[256];
        struct hy3_shard *shard = NULL;
        hy3_status status;

        if (strcmp(json_string_value(json_object_get(row, "kind")), "safetensors") != 0)
            continue;
        judged++;
        snprintf(name, sizeof name, "a/bad_inputs/%s", file);
        status = hy3_shard_open(hy3_golden(name), &shard);
        hy3_shard_close(shard);
        if (strcmp(expect, "reject") == 0)
            assert_fails(HY3_EFORMAT, file, status);
        else if (strcmp(expect, "accept") == 0)
            assert_ok(status);
    }
    assert_true(judged >= 15);
    json_decref(list);
}

static void write_shard(const char *path, const char *header, const void *data, size_t size)
{
    char bytes[4096] = "";
    size_t length = strlen(header);

    assert_true(8 + length + size <= sizeof bytes);
    for (size_t i = 0; i < 8; i++)
        bytes[i] = (char)(length >> (8 * i) & 255);
    memcpy(bytes + 8, header, length);
    memcpy(bytes + 8 + length, data, size);
    assert_ok(hy3_output_replace(path, bytes, 8 + length + size));
}

static const char *shard_path(void)
{
    static char path[HY3_PATH_MAX];

    snprintf(path, sizeof path, "%s/t.safetensors", hy3_test_directory());
    return path;
}

static void refuses(const char *words, const char *header, size_t size)
{
    static const char zeros[64];
    struct hy3_shard *shard = NULL;

    write_shard(shard_path(), header, zeros, size);
    assert_fails(HY3_EFORMAT, words, hy3_shard_open(shard_path(), &shard));
    assert_null(shard);
}

static void headers_that_lie_are_refused(void **state)
{
    (void)state;
    refuses("byte boundary", "{\"t\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2);
    refuses("dimensions",
            "{\"t\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}", 1);
    refuses("two counts", "{\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]}}", 1);
    refuses("two counts", "{\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,\"1\"]}}", 1);
    refuses("not an object", "{\"t\":3}", 0);
    refuses("dtype", "{\"t\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1);
    refuses("is not a list", "{\"t\":{\"dtype\":\"U8\",\"shape\":1,\"data_offsets\":[0,1]}}", 1);
    refuses("not a list of counts",
            "{\"t\":{\"dtype\":\"U8\",\"shape\":[1.0],\"data_offsets\":[0,1]}}", 1);
    refuses("__metadata__", "{\"__metadata__\":[]}", 0);
    refuses("not valid JSON", "{\"t\\u0000\":{}}", 0);
    refuses("'format' in '__metadata__' is not a text", "{\"__metadata__\":{\"format\":[]}}", 0);
    refuses("two entries '__metadata__'", "{\"__metadata__\":{},\"__metadata__\":{}}", 0);
    refuses("two entries of tensor 't'",
            "{\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
            "\"\\u0074\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
            2);
    refuses("duplicate object key",
            "{\"t\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1);
    refuses("unable to decode byte 0xff",
            "{\"\xff\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1);
    refuses("too big integer",
            "{\"t\":{\"dtype\":\"U8\",\"shape\":[99999999999999999999],\"data_offsets\":[0,1]}}",
            1);
    refuses("at byte", "{\"t\" 3}", 0);
    refuses("a name is expected", "{3}", 0);
    refuses("',' or '}' is expected", "{\"__metadata__\":{} \"t\"", 0);
    refuses("a name is expected", "{\"__metadata__\":{},}", 0);
    refuses("the end is expected", "{} x", 0);
    refuses("'{' is expected", "[]", 0);
    refuses("'{' is expected", "", 0);
    refuses("gap", "{\"t\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2);
    refuses("follow", "{}", 1);
}

static void odd_but_legal_headers_are_read(void **state)
{
    static const char data[] = {1, 2, 3, 4, 5, 6, 7, 8};
    struct hy3_shard *shard = NULL;
    const struct hy3_shard_tensor *t;
    char raw[2];

    (void)state;
    write_shard(shard_path(),
                "{\"__metadata__\":{\"format\":\"pt\"},"
                "\"../z\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,2],\"data_offsets\":[4,8]},"
                "\"a\":{\"dtype\":\"I16\",\"shape\":[2],\"data_offsets\":[0,4]},"
                "\"empty\":{\"dtype\":\"F32\",\"shape\":[0,7],\"data_offsets\":[4,4]},"
                "\"scalar\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[8,8]}}   ",
                data, sizeof data);
    assert_ok(hy3_shard_open(shard_path(), &shard));
    assert_int_equal(hy3_shard_count(shard), 4);
    assert_string_equal(hy3_shard_tensor(shard, 0)->name, "a");
    assert_non_null(t = hy3_shard_find(shard, "../z"));
    assert_false(t->is_float);
    assert_string_equal(t->dtype_name, "F8_E4M3");
    assert_int_equal(t->count, 4);
    assert_ok(hy3_shard_read_raw(shard, t, 1, 2, raw));
    assert_int_equal(raw[0], 6);
    assert_int_equal(raw[1], 7);
    assert_null(hy3_shard_find(shard, "z"));
    hy3_shard_close(shard);
}

/* A file of `size` bytes of header: `unit`, a format of one number, as often as there is room,
 * between `head` and `tail`, then spaces. */
static void write_large(size_t size, const char *head, const char *unit, const char *tail)
{
    char *text, piece[128];
    size_t used = 8, count = 0;

    assert_ok(hy3_alloc(&text, size + 8 + sizeof piece, 1));
    for (size_t i = 0; i < 8; i++)
        text[i] = (char)(size >> (8 * i) & 255);
    memset(text + 8, ' ', size);
    memcpy(text + used, head, strlen(head));
    used += strlen(head);
    for (; used + sizeof piece < size; count++) {
        int length = snprintf(piece, sizeof piece, unit, count > 0 ? "," : "", count);

        memcpy(text + used, piece, (size_t)length);
        used += (size_t)length;
    }
    memcpy(text + used, tail, strlen(tail));
    assert_ok(hy3_output_replace(shard_path(), text, size + 8));
    hy3_free(text);
}

/* The most memory that opening takes, in times of the header; in a child, whose peak is its own. */
static double memory_of_opening(size_t size, hy3_status expected)
{
    size_t before, peak, exchanged[2] = {0, 0};
    int ends[2], ended;
    pid_t child;

    assert_int_equal(pipe(ends), 0);
    if ((child = fork()) == 0) {
        struct hy3_shard *shard = NULL;
        hy3_status status;

        before = hy3_memory_resident();
        status = hy3_shard_open(shard_path(), &shard);
        peak = hy3_memory_peak();
        exchanged[0] = status == expected;
        exchanged[1] = peak - before;
        _exit(write(ends[1], exchanged, sizeof exchanged) != sizeof exchanged);
    }
    assert_int_equal(read(ends[0], exchanged, sizeof exchanged), sizeof exchanged);
    assert_int_equal(waitpid(child, &ended, 0), child);
    close(ends[0]);
    close(ends[1]);
    assert_int_equal(exchanged[0], 1);
    return (double)exchanged[1] / (double)size;
}

static void a_header_takes_a_few_times_its_size(void **state)
{
    enum { SIZE = 8 << 20 };

    static const struct {
        const char *head, *unit, *tail;
        hy3_status status;
    } rows[] = {
        {"{", "%s\"%zx\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}", "}", HY3_OK},
        {"{\"__metadata__\":{", "%s\"%zx\":\"\"", "}}", HY3_OK},
        {"{\"__metadata__\":[", "%s[%zu]", "]}", HY3_EFORMAT},
        {"{\"t\":{\"x\":[", "%s[%zu]", "]}}", HY3_EFORMAT},
        {"{\"t\":{\"shape\":[", "%s%zu", "]}}", HY3_EFORMAT},
        {"{\"", "%.0s%zx", "\":{}}", HY3_EFORMAT},
    };

    (void)state;
#ifdef __SANITIZE_ADDRESS__
    skip(); /* what is freed stays in quarantine */
#endif
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        write_large(SIZE, rows[i].head, rows[i].unit, rows[i].tail);
        assert_true(memory_of_opening(SIZE, rows[i].status) < 6);
    }
}

static void values_are_converted(void **state)
{
    static const float values[] = {1.5f, -0.0f, 3.25f, -2.0f};
    static const char *const names[] = {"F32", "BF16", "F16"};
    static const hy3_dtype dtypes[] = {HY3_FP32, HY3_BF16, HY3_FP16};

    (void)state;
    for (int from = 0; from < 3; from++)
        for (int to = 0; to < 3; to++) {
            char header[128], data[16], got[16], want[16];
            size_t size = hy3_dtype_size(dtypes[from]);
            struct hy3_shard *shard = NULL;

            snprintf(header, sizeof header,
                     "{\"t\":{\"dtype\":\"%s\",\"shape\":[4],\"data_offsets\":[0,%zu]}}",
                     names[from], 4 * size);
            hy3_convert(values, HY3_FP32, data, dtypes[from], 4);
            hy3_convert(values + 1, HY3_FP32, want, dtypes[to], 3);
            write_shard(shard_path(), header, data, 4 * size);
            assert_ok(hy3_shard_open(shard_path(), &shard));
            assert_ok(hy3_shard_read(shard, hy3_shard_find(shard, "t"), (struct hy3_span){1, 3},
                                     got, dtypes[to]));
            assert_memory_equal(got, want, 3 * hy3_dtype_size(dtypes[to]));
            hy3_shard_close(shard);
        }
}

static void running_out_of_memory_is_reported(void **state)
{
    (void)state;
    for (int n = 1; n < 200; n++) {
        struct hy3_shard *shard = NULL;
        hy3_status status;

        hy3_alloc_fail_at(n);
        status = hy3_shard_open(hy3_golden("a/inner/model-00002-of-00005.safetensors"), &shard);
        hy3_alloc_fail_at(0);
        hy3_shard_close(shard);
        if (status == HY3_OK) {
            assert_true(n > 4);
            return;
        }
        assert_int_equal(status, HY3_ENOMEM);
    }
    fail_msg("200 failing allocations did not end");
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_hostile_file_is_judged_as_the_golden_list_says),
        cmocka_unit_test(headers_that_lie_are_refused),
        cmocka_unit_test(odd_but_legal_headers_are_read),
        cmocka_unit_test(a_header_takes_a_few_times_its_size),
        cmocka_unit_test(values_are_converted),
        cmocka_unit_test(running_out_of_memory_is_reported),
    };
    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
