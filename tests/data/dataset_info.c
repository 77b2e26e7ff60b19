/* SPDX-License-Identifier: Apache-2.0 */
/* dataset_info.c - the files and forms of named data sets, and every entry that is refused. */
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
static hy3_status resolve(const char *entry, struct hy3_named_data *data)
{
    char text[1000], *name = (char[]){"own"};

    snprintf(text, sizeof text, "{\"other\": {}, \"own\": %s}", entry);
    write_text("dataset_info.json", text);
    write_text("a", line);
    return hy3_dataset_info_resolve(hy3_test_directory(), &name, 1, data);
}

static void named_datasets_become_files_in_their_order(void **state)
{
    char *names[2] = {(char[]){"two"}, (char[]){"one"}}, wanted[HY3_PATH_MAX];
    struct hy3_named_data data;

    (void)state;
    write_text("one.jsonl", line);
    write_text("two.jsonl", line);
    write_text(
        "dataset_info.json",
        "{\"one\": {\"file_name\": \"one.jsonl\", \"formatting\": \"sharegpt\", \"columns\": "
        "{\"messages\": \"messages\"}, \"tags\": {\"role_tag\": \"role\", "
        "\"content_tag\": \"content\", \"user_tag\": \"user\", \"assistant_tag\": \"assistant\"}}, "
        "\"two\": {\"file_name\": \"two.jsonl\"}}");
    assert_ok(hy3_dataset_info_resolve(hy3_test_directory(), names, 2, &data));
    assert_int_equal(data.count, 2);
    for (int f = 0; f < data.count; f++) {
        snprintf(wanted, sizeof wanted, "%s/%s.jsonl", hy3_test_directory(), names[f]);
        assert_string_equal(data.files[f], wanted);
        assert_int_equal(data.sets[f], f);
    }
    assert_int_equal(data.forms[0].kind, HY3_FORM_ALPACA);
    assert_string_equal(data.forms[0].response, "output");
    assert_int_equal(data.forms[1].kind, HY3_FORM_MESSAGES); /* our own names */
    assert_string_equal(data.forms[1].role_tag, "");
    hy3_named_data_free(&data);
}

static void an_object_of_names_is_complete(void **state)
{
    struct hy3_named_data data;

    (void)state;
    assert_ok(
        resolve("{\"file_name\": \"a\", \"columns\": {\"prompt\": \"q\", \"response\": "
                "\"a\"}}",
                &data));
    assert_string_equal(data.forms->prompt, "q");
    assert_string_equal(data.forms->query, ""); /* not LLaMA-Factory's default, "input" */
    hy3_named_data_free(&data);
    assert_ok(resolve("{\"file_name\": \"a\", \"formatting\": \"sharegpt\"}", &data));
    assert_int_equal(data.forms->kind, HY3_FORM_SHAREGPT);
    assert_string_equal(data.forms->messages, "conversations");
    assert_string_equal(data.forms->user_tag, "human");
    assert_string_equal(data.forms->function_tag, "function_call");
    hy3_named_data_free(&data);
}

static void our_own_names_are_read_as_they_are_unless_others_stand_beside(void **state)
{
    struct hy3_named_data data;

    (void)state;
    assert_ok(
        resolve("{\"file_name\": \"a\", \"hf_hub_url\": \"x/y\", \"split\": \"test\", "
                "\"formatting\": \"sharegpt\", \"tags\": {\"role_tag\": \"role\", "
                "\"content_tag\": \"content\", \"user_tag\": \"user\", "
                "\"assistant_tag\": \"assistant\", \"observation_tag\": \"seen\"}}",
                &data));
    assert_int_equal(data.forms->kind, HY3_FORM_SHAREGPT);
    assert_string_equal(data.forms->observation_tag, "seen");
    hy3_named_data_free(&data);
}

static void a_directory_is_all_its_files_by_name(void **state)
{
    char path[HY3_PATH_MAX];
    struct hy3_named_data data;

    (void)state;
    assert_ok(hy3_path_format(path, sizeof path, "%s/parts", hy3_test_directory()));
    assert_ok(hy3_directory_create(path));
    write_text("parts/b.jsonl", line);
    write_text("parts/a.jsonl", line);
    write_text("parts/.hidden", line);
    assert_ok(resolve("{\"file_name\": \"parts\"}", &data));
    assert_int_equal(data.count, 2);
    assert_string_equal(hy3_path_name(data.files[0]), "a.jsonl");
    assert_int_equal(data.sets[1], 0);
    hy3_named_data_free(&data);
}

static void entries_that_mean_something_else_are_refused(void **state)
{
    static const struct {
        hy3_status status;
        const char *entry, *words;
    } cases[] = {
        {HY3_EFORMAT, "3", "its entry must be an object"},
        {HY3_EUSAGE, "{}", "names no local file"},
        {HY3_EUSAGE, "{\"hf_hub_url\": \"a/b\"}", "hf download --repo-type dataset a/b"},
        {HY3_EUSAGE, "{\"file_name\": \"nowhere.json\"}", "dataset 'own' of '"},
        {HY3_EUSAGE, "{\"file_name\": \"no*.json\"}", "dataset 'own' of '"},
        {HY3_EUSAGE, "{\"file_name\": \"nowhere.json\"}", "nowhere.json' does not exist"},
        {HY3_EUSAGE, "{\"file_name\": \"a\", \"formatting\": \"csv\"}", "none of alpaca"},
        {HY3_EUSAGE, "{\"file_name\": \"a\", \"ranking\": true}", "for ranking"},
        {HY3_EUSAGE, "{\"file_name\": \"a\", \"num_samples\": 7}", "set max_samples"},
        {HY3_EUSAGE, "{\"file_name\": \"a\", \"num_samples\": \"7\"}", "set max_samples"},
        {HY3_EUSAGE, "{\"file_name\": \"a\", \"ranking\": \"yes\"}", "for ranking"},
        {HY3_EUSAGE, "{\"file_name\": \"a\", \"formating\": \"sharegpt\"}",
         "unknown key \"formating\"; did you mean \"formatting\"?"},
        {HY3_EUSAGE, "{\"file_name\": \"a\", \"columns\": {\"images\": \"i\"}}", "\"images\""},
        {HY3_EUSAGE, "{\"file_name\": \"a\", \"columns\": {\"prompt\": 3}}", "must be a text"},
        {HY3_EUSAGE, "{\"file_name\": \"a\", \"columns\": 3}", "must be an object"},
        {HY3_EUSAGE,
         "{\"file_name\": \"a\", \"formatting\": \"sharegpt\", \"tags\": {\"role_tag\": "
         "\"from\"}}",
         "must name role_tag"},
    };

    struct hy3_named_data data;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_fails(cases[i].status, cases[i].words, resolve(cases[i].entry, &data));
        assert_null(data.files);
    }
}

static void an_unknown_name_is_answered_with_the_known_ones(void **state)
{
    char *name = (char[]){"owm"};
    struct hy3_named_data data;

    (void)state;
    write_text("dataset_info.json", "{\"other\": {}, \"own\": {}}");
    assert_fails(HY3_EUSAGE, "it has: other, own",
                 hy3_dataset_info_resolve(hy3_test_directory(), &name, 1, &data));
    assert_fails(HY3_EIO, "dataset_info.json",
                 hy3_dataset_info_resolve("/no/such", &name, 1, &data));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(named_datasets_become_files_in_their_order),
        cmocka_unit_test(an_object_of_names_is_complete),
        cmocka_unit_test(our_own_names_are_read_as_they_are_unless_others_stand_beside),
        cmocka_unit_test(a_directory_is_all_its_files_by_name),
        cmocka_unit_test(entries_that_mean_something_else_are_refused),
        cmocka_unit_test(an_unknown_name_is_answered_with_the_known_ones),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
