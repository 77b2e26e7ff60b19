/* SPDX-License-Identifier: Apache-2.0 */
/* named_data.c - directories, patterns and numbers of samples: which files they are, in which
 * order, the same on every rank. */
#include "data/named_data.h"

#include "base/memory.h"
#include "data/fixture.h"

#define LINE                                                                        \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\"," \
    "\"content\":\"b\"}]}\n"

static void make(const char *name)
{
    char path[HY3_PATH_MAX], *slash;

    snprintf(path, sizeof path, "%s", here(name));
    slash = strrchr(path, '/');
    *slash = '\0';
    if (rank() == 0)
        assert_ok(hy3_directory_create(path));
    *slash = '/';
    write_text(path, LINE LINE LINE);
}

/* What the names become, "file:set:limit" without the test's directory. */
static hy3_status list(const char *const *names, int count, struct hy3_named_data *data)
{
    static const struct hy3_form form;
    char *paths[8];
    hy3_status status = HY3_OK;

    *data = (struct hy3_named_data){0};
    for (int i = 0; i < count; i++)
        assert_ok(hy3_strdup(here(names[i]), &paths[i]));
    if (rank() == 0)
        status = hy3_named_data_list(paths, count, &form, data);
    for (int i = 0; i < count; i++)
        hy3_free(paths[i]);
    return status;
}

static void assert_is(const char *const *names, int count, const char *wanted)
{
    struct hy3_named_data data;
    char text[1024] = "";
    size_t used = 0;

    assert_ok(list(names, count, &data));
    assert_all(hy3_named_data_share(MPI_COMM_WORLD, &data) == HY3_OK);
    for (int f = 0; f < data.count; f++)
        used += (size_t)snprintf(text + used, sizeof text - used, "%s%s:%d:%lld", f > 0 ? " " : "",
                                 data.files[f] + strlen(hy3_test_directory()) + 1, data.sets[f],
                                 (long long)data.limits[f]);
    if (strcmp(text, wanted) != 0)
        fail_msg("rank %d: %s, not %s", rank(), text, wanted);
    hy3_named_data_free(&data);
}

static void directories_and_patterns_are_files_by_name(void **state)
{
    static const char *const files[] = {
        "d/b.jsonl",           "d/a.json",   "d/C.jsonl",
        "d/.hidden",           "d/train.h5", "d/train.rejected.jsonl",
        "d/train.h5.x-1.part", "odd/x#2",    "odd/[a].jsonl"};

    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        make(files[i]);
    assert_is((const char *[]){"d"}, 1, "d/C.jsonl:0:0 d/a.json:0:0 d/b.jsonl:0:0");
    assert_is((const char *[]){"d/"}, 1, "d/C.jsonl:0:0 d/a.json:0:0 d/b.jsonl:0:0");
    assert_is((const char *[]){"d/*.jsonl", "d/a.json#2"}, 2,
              "d/C.jsonl:0:0 d/b.jsonl:0:0 d/a.json:1:2");
    assert_is((const char *[]){"d/[ab].json*#7", "d/b.jsonl#1"}, 2,
              "d/a.json:0:7 d/b.jsonl:0:7 d/b.jsonl:1:1");
    assert_is((const char *[]){"odd/x#2", "odd/x#2#3", "odd/[a].jsonl"}, 3,
              "odd/x#2:0:0 odd/x#2:1:3 odd/[a].jsonl:2:0");
    assert_is((const char *[]){"d/a.json#0", "d/a.json#", "d/a.json#b"}, 3,
              "d/a.json#0:0:0 d/a.json#:1:0 d/a.json#b:2:0");
}

static void what_names_no_files_of_one_kind_is_refused(void **state)
{
    static const struct {
        const char *name, *words;
    } cases[] = {{"mixed", "files of more than one kind: 'a.jsonl' and 'notes.md'"},
                 {"none", "has no files"},
                 {"d/*.csv", "no file matches"}};

    struct hy3_named_data data;

    (void)state;
    make("mixed/a.jsonl");
    make("mixed/notes.md");
    make("none/.keep");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        hy3_status status = list(&cases[i].name, 1, &data);

        if (rank() == 0)
            assert_fails(HY3_EUSAGE, cases[i].words, status);
    }
}

static void a_number_of_samples_counts_its_set(void **state)
{
    static const int64_t limits[][3] = {{2, 2, 0}, {0, 0, 1}, {4, 4, 1}, {7, 7, 0}};
    static const int64_t samples[] = {5, 7, 5, -1}; /* 3 a file; the first two are a set */
    const char *files[] = {here("d/a.json"), here("d/b.jsonl"), here("d/C.jsonl")};
    const int sets[] = {0, 0, 1};

    (void)state;
    for (size_t i = 0; i < sizeof samples / sizeof *samples; i++) {
        struct hy3_dataset_options o = options_for("", "numbers");
        struct hy3_dataset_summary sum = {0};
        hy3_status status;

        o.files = files;
        o.file_count = 3;
        o.sets = sets;
        o.limits = limits[i];
        status = open_and_close(&o, &sum);
        if (samples[i] < 0) {
            assert_fails(HY3_EUSAGE, "a.json#7' asks for more samples than there are: 6 lines",
                         status);
            continue;
        }
        assert_all(status == HY3_OK && !sum.reused && sum.samples == samples[i]);
        assert_all(is_reused(&o));
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(directories_and_patterns_are_files_by_name),
        cmocka_unit_test(what_names_no_files_of_one_kind_is_refused),
        cmocka_unit_test(a_number_of_samples_counts_its_set),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
