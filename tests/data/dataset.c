/* dataset.c - JSONL to token file to samples, on any number of ranks, against the golden answers. */
#include "data/dataset.h"

#include "base/file.h"
#include "base/memory.h"
#include "comm/comm.h"
#include "data/batches.h"
#include "support/test.h"

#include <unistd.h>

static struct hy3_dataset_options options_for(const char *const *files, int count, const char *name)
{
    static char directory[HY3_PATH_MAX], tokenizer[HY3_PATH_MAX];

    snprintf(directory, sizeof directory, "%s/%s", hy3_test_directory(), name);
    snprintf(tokenizer, sizeof tokenizer, "%s", hy3_golden("a/tokenizer"));
    if (hy3_rank(MPI_COMM_WORLD) == 0)
        assert_ok(hy3_directory_create(directory));
    hy3_barrier(MPI_COMM_WORLD, "testing");
    return (struct hy3_dataset_options){.files = files,
                                        .file_count = count,
                                        .tokenizer_directory = tokenizer,
                                        .cache_directory = directory,
                                        .name = "train",
                                        .max_seq_length = 64};
}

/* Sample i of ours equals a row of dataset_tokens.json: ids, and labels as the mask. */
static bool is_sample(const struct hy3_dataset *d, int64_t i, const json_t *row)
{
    const json_t *ids = json_object_get(row, "ids"), *labels = json_object_get(row, "labels");
    int64_t n = hy3_dataset_length(d, i);
    int32_t tokens[64];
    uint8_t mask[64];

    if (n != (int64_t)json_array_size(ids) || n > 64 ||
        hy3_dataset_read(d, i, tokens, mask) != HY3_OK)
        return false;
    for (size_t t = 0; t < (size_t)n; t++)
        if (tokens[t] != json_integer_value(json_array_get(ids, t)) ||
            mask[t] != (json_integer_value(json_array_get(labels, t)) != -100))
            return false;
    return true;
}

static bool has_label(const json_t *row)
{
    const json_t *labels = json_object_get(row, "labels");
    bool any = false;

    for (size_t t = 1; t < json_array_size(labels); t++)
        any = any || json_integer_value(json_array_get(labels, t)) != -100;
    return any;
}

static void all_samples_equal_the_reference(void **state)
{
    const char *files[] = {hy3_golden("a/dataset.jsonl")};
    json_t *golden = hy3_golden_json("a/dataset_tokens.json");
    const json_t *rows = json_object_get(golden, "samples");
    struct hy3_dataset_summary sum;

    (void)state;
    for (int keep = 0; keep < 2; keep++) { /* dropped ones, and kept ones */
        struct hy3_dataset_options o = options_for(files, 1, keep ? "keep" : "drop");
        struct hy3_dataset *d;
        int64_t at = 0;
        bool equal = true;

        o.keep_unlabelled = keep;
        assert_all(hy3_dataset_open(MPI_COMM_WORLD, &o, &d, &sum) == HY3_OK);
        for (size_t i = 0; i < json_array_size(rows); i++)
            if (keep || has_label(json_array_get(rows, i)))
                equal = equal && is_sample(d, at++, json_array_get(rows, i));
        assert_all(equal && at == hy3_dataset_count(d) && sum.samples == at);
        assert_all(sum.dropped == (int64_t)json_array_size(rows) - at);
        hy3_dataset_close(d);
        assert_all(hy3_dataset_open(MPI_COMM_WORLD, &o, &d, &sum) == HY3_OK);
        assert_all(sum.reused);
        hy3_dataset_close(d);
    }
    json_decref(golden);
}

static void bad_lines_are_named(void **state)
{
    json_t *golden = hy3_golden_json("a/bad_inputs.json"), *row;
    size_t i;

    (void)state;
    json_array_foreach(json_object_get(golden, "files"), i, row)
    {
        const char *file = json_string_value(json_object_get(row, "file"));
        const char *expect = json_string_value(json_object_get(row, "expect"));
        char path[HY3_PATH_MAX], where[HY3_PATH_MAX];
        const char *files[] = {path};
        struct hy3_dataset *d = NULL;
        struct hy3_dataset_options o;
        hy3_status status;

        if (!file || strcmp(json_string_value(json_object_get(row, "kind")), "jsonl") != 0)
            continue;
        snprintf(where, sizeof where, "a/bad_inputs/%s", file);
        snprintf(path, sizeof path, "%s", hy3_golden(where));
        o = options_for(files, 1, file);
        o.keep_unlabelled = true;
        status = hy3_dataset_open(MPI_COMM_WORLD, &o, &d, NULL);
        hy3_dataset_close(d);
        if (strcmp(expect, "accept") == 0)
            assert_all(status == HY3_OK);
        if (strcmp(expect, "reject") != 0)
            continue;
        assert_all(status == HY3_EFORMAT);
        if (json_is_null(json_object_get(row, "line")) || !json_object_get(row, "line"))
            continue;
        snprintf(where, sizeof where, "%s:%lld", file,
                 json_integer_value(json_object_get(row, "line")));
        assert_all(strstr(hy3_error_text(), where) != NULL);
    }
    json_decref(golden);
}

static void a_torn_file_is_made_anew(void **state)
{
    const char *files[] = {hy3_golden("a/dataset.jsonl")};
    struct hy3_dataset_options o = options_for(files, 1, "torn");
    struct hy3_dataset *d;
    struct hy3_dataset_summary sum;
    char path[HY3_PATH_MAX + 16];
    int64_t size = 0;

    (void)state;
    assert_all(hy3_dataset_open(MPI_COMM_WORLD, &o, &d, &sum) == HY3_OK);
    hy3_dataset_close(d);
    snprintf(path, sizeof path, "%s/train.h5", o.cache_directory);
    assert_all(hy3_file_size(path, &size) == HY3_OK);
    hy3_barrier(MPI_COMM_WORLD, "testing");
    for (int64_t cut = size - 1; cut > 0; cut = cut * 2 / 3) {
        if (hy3_rank(MPI_COMM_WORLD) == 0)
            assert_int_equal(truncate(path, cut), 0);
        hy3_barrier(MPI_COMM_WORLD, "testing");
        assert_all(hy3_dataset_open(MPI_COMM_WORLD, &o, &d, &sum) == HY3_OK);
        assert_all(!sum.reused && hy3_dataset_count(d) > 20);
        hy3_dataset_close(d);
    }
}

static void a_missing_file_is_told_before_any_work(void **state)
{
    const char *files[] = {hy3_golden("a/dataset.jsonl"), "/nowhere/at/all.jsonl"};
    struct hy3_dataset_options o = options_for(files, 2, "missing");
    struct hy3_dataset *d;

    (void)state;
    assert_all(hy3_dataset_open(MPI_COMM_WORLD, &o, &d, NULL) == HY3_EIO);
    assert_all(strstr(hy3_error_text(), "/nowhere/at/all.jsonl") != NULL);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_samples_equal_the_reference),
        cmocka_unit_test(bad_lines_are_named),
        cmocka_unit_test(a_torn_file_is_made_anew),
        cmocka_unit_test(a_missing_file_is_told_before_any_work),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
