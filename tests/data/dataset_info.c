/* SPDX-License-Identifier: Apache-2.0 */
/* dataset_info.c - the files of named data sets, and every entry that hy3 would read wrongly. */
#include "data/dataset_info.h"

#include "base/file.h"
#include "base/output.h"
#include "support/test.h"

#include <stdio.h>
#include <string.h>

static const char line[] = "{\"messages\": [{\"role\": \"user\", \"content\": \"hello\"}]}\n";

static void write_text(const char *name, const char *text)
{
    char path[HY3_PATH_MAX];

    assert_ok(hy3_path_format(path, sizeof path, "%s/%s", hy3_test_directory(), name));
    assert_ok(hy3_output_replace(path, text, strlen(text)));
}

/* Resolves the dataset "own" described by `entry`. */
static hy3_status resolve(const char *entry, char ***files, int *count)
{
    char text[1000], *name = (char[]){"own"};

    snprintf(text, sizeof text, "{\"other\": {}, \"own\": %s}", entry);
    write_text("dataset_info.json", text);
    return hy3_dataset_info_resolve(hy3_test_directory(), &name, 1, files, count);
}

static void named_datasets_become_files_in_their_order(void **state)
{
    char *names[2] = {(char[]){"two"}, (char[]){"one"}}, **files, wanted[HY3_PATH_MAX];
    int count;

    (void)state;
    write_text("one.jsonl", line);
    write_text("two.jsonl", line);
    write_text(
        "dataset_info.json",
        "{\"one\": {\"file_name\": \"one.jsonl\", \"formatting\": \"sharegpt\", \"columns\": "
        "{\"messages\": \"messages\"}, \"tags\": {\"role_tag\": \"role\", "
        "\"content_tag\": \"content\", \"user_tag\": \"user\", \"assistant_tag\": \"assistant\"}}, "
        "\"two\": {\"file_name\": \"two.jsonl\", \"formatting\": \"openai\"}}");
    assert_ok(hy3_dataset_info_resolve(hy3_test_directory(), names, 2, &files, &count));
    assert_int_equal(count, 2);
    for (int f = 0; f < count; f++) {
        snprintf(wanted, sizeof wanted, "%s/%s.jsonl", hy3_test_directory(), names[f]);
        assert_string_equal(files[f], wanted);
    }
    hy3_dataset_info_free(files, count);
}

static void entries_that_mean_something_else_are_refused(void **state)
{
    static const struct {
        hy3_status status;
        const char *entry, *words;
    } cases[] = {
        {HY3_EFORMAT, "3", "its entry must be an object"},
        {HY3_EUSAGE, "{\"hf_hub_url\": \"a/b\"}", "names no local file"},
        {HY3_EUSAGE, "{\"file_name\": \"a\", \"formatting\": \"alpaca\"}",
         "\"formatting\" must be"},
        {HY3_EUSAGE, "{\"file_name\": \"a\", \"ranking\": true}", "for ranking"},
        {HY3_EUSAGE, "{\"file_name\": \"a\", \"num_samples\": 7}", "set max_samples"},
        {HY3_EUSAGE, "{\"file_name\": \"a\", \"columns\": {\"prompt\": \"q\"}}", "\"prompt\""},
        {HY3_EUSAGE, "{\"file_name\": \"a\", \"columns\": {\"messages\": \"talk\"}}",
         "\"messages\""},
        {HY3_EUSAGE, "{\"file_name\": \"a\", \"tags\": {\"role_tag\": \"from\"}}", "\"role_tag\""},
        {HY3_EIO, "{\"file_name\": \"none.jsonl\"}", "none.jsonl"},
        {HY3_EUSAGE, "{\"file_name\": \"array.json\"}", "jq -c"},
    };

    char **files;
    int count;

    (void)state;
    write_text("array.json", "\xef\xbb\xbf \n [{}]");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_fails(cases[i].status, cases[i].words, resolve(cases[i].entry, &files, &count));
        assert_null(files);
    }
}

static void an_unknown_name_is_answered_with_the_known_ones(void **state)
{
    char *name = (char[]){"owm"}, **files;
    int count;

    (void)state;
    write_text("dataset_info.json", "{\"other\": {}, \"own\": {}}");
    assert_fails(HY3_EUSAGE, "it has: other, own",
                 hy3_dataset_info_resolve(hy3_test_directory(), &name, 1, &files, &count));
    assert_fails(HY3_EIO, "dataset_info.json",
                 hy3_dataset_info_resolve("/no/such", &name, 1, &files, &count));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(named_datasets_become_files_in_their_order),
        cmocka_unit_test(entries_that_mean_something_else_are_refused),
        cmocka_unit_test(an_unknown_name_is_answered_with_the_known_ones),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
