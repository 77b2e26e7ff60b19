/* SPDX-License-Identifier: Apache-2.0 */
/* items.c - a JSON array, and values one after the other, give the samples of their lines, wherever
 * pieces cut them and on any number of ranks. */
#include "base/memory.h"
#include "data/fixture.h"
#include "data/kind.h"
#include "data/lines.h"
#include "data/portions.h"

#include <stdio.h>
#include <stdlib.h>

/* The lines of the golden data set, joined. */
static char *join(const char *open, const char *between, const char *close)
{
    char *lines, *text = NULL, *line, *rest = NULL;
    size_t size;
    FILE *out;

    assert_ok(hy3_file_read(hy3_golden("a/dataset.jsonl"), 1 << 24, &lines, &size));
    out = open_memstream(&text, &size);
    assert_non_null(out);
    fputs(open, out);
    for (line = strtok_r(lines, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        fprintf(out, "%s%s", line, rest && *rest ? between : "");
    fputs(close, out);
    assert_int_equal(fclose(out), 0);
    hy3_free(lines);
    return text;
}

static void assert_same_samples(const struct hy3_dataset *a, const struct hy3_dataset *b)
{
    enum { LENGTH = 64 };

    int32_t ids[2][LENGTH];
    uint8_t masks[2][LENGTH];

    assert_all(hy3_dataset_count(a) == hy3_dataset_count(b));
    for (int64_t i = 0; i < hy3_dataset_count(a); i++) {
        size_t length = (size_t)hy3_dataset_length(a, i);

        assert_all(hy3_dataset_length(b, i) == (int64_t)length && length <= LENGTH);
        assert_all(hy3_dataset_read(a, i, ids[0], masks[0]) == HY3_OK);
        assert_all(hy3_dataset_read(b, i, ids[1], masks[1]) == HY3_OK);
        assert_all(memcmp(ids[0], ids[1], length * sizeof **ids) == 0);
        assert_all(memcmp(masks[0], masks[1], length) == 0);
    }
}

static void every_layout_gives_the_same_samples(void **state)
{
    static const char *const layouts[][3] = {
        {"[", ",", "]"},
        {"[\n", ",\n", "\n]\n"},
        {"\xef\xbb\xbf[\r\n  ", "\r\n  ,", "\r\n]"},
        {"", " ", ""},
    };
    static const int64_t pieces[] = {1, 37, 1000, 0};
    struct hy3_dataset_options o = options_for(hy3_golden("a/dataset.jsonl"), "lines");
    struct hy3_dataset *lines, *items;
    struct hy3_dataset_summary sum;
    char where[HY3_PATH_MAX];

    (void)state;
    o.keep_unlabelled = true;
    assert_ok(hy3_dataset_open(MPI_COMM_WORLD, &o, &lines, &sum));
    for (size_t l = 0; l < 4; l++)
        for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++) {
            struct hy3_dataset_options other = options_for(here("items.json"), "items");
            char *text = join(layouts[l][0], layouts[l][1], layouts[l][2]);

            write_text(here("items.json"), text);
            free(text);
            other.keep_unlabelled = other.overwrite = true;
            hy3_portions_override(pieces[p]);
            assert_all(hy3_dataset_open(MPI_COMM_WORLD, &other, &items, &sum) == HY3_OK);
            assert_all(sum.lines == 30 && sum.bad == 0);
            assert_same_samples(lines, items);
            hy3_dataset_where(items, 2, where, sizeof where);
            assert_all(strstr(where, "items.json: item 3") != NULL);
            hy3_dataset_close(items);
        }
    hy3_portions_override(0);
    hy3_dataset_close(lines);
}

#define GOOD                                                                        \
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\"," \
    "\"content\":\"}]\\\\\\\"{\"}]}"

static void what_is_no_item_is_bad_and_named(void **state)
{
    static const struct {
        const char *text;
        int64_t samples, bad;
    } cases[] = {
        {"[\n" GOOD ", 7, " GOOD "]", 2, 1},
        {"[\n" GOOD ", \"x, y\", null, " GOOD "]", 2, 2},
        {"[\n" GOOD ", [1, {}], " GOOD "]\n", 2, 1},
        {"[\n" GOOD "][" GOOD "]\n", 2, 0},
        {"\xef\xbb\xbf [\n" GOOD " \n , \t" GOOD "\n] \r\n", 2, 0},
    };

    static const int64_t pieces[] = {1, 20, 0};

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++) {
            struct hy3_dataset_options o = options_for(here("bad.json"), "bad");
            struct hy3_dataset_summary sum = {0};
            struct hy3_dataset *d = NULL;

            write_text(here("bad.json"), cases[i].text);
            o.overwrite = true;
            o.max_bad_samples = 9;
            hy3_portions_override(pieces[p]);
            assert_all(hy3_dataset_open(MPI_COMM_WORLD, &o, &d, &sum) == HY3_OK);
            if (sum.samples != cases[i].samples || sum.bad != cases[i].bad)
                fail_msg("%s: %lld samples, %lld bad", cases[i].text, (long long)sum.samples,
                         (long long)sum.bad);
            hy3_dataset_close(d);
        }
    hy3_portions_override(0);
}

/* The file is refused in pieces of each size. place: what one rank says; others may be at a
 * consequence of it first. */
static void assert_no_json(const char *text, const char *place)
{
    static const int64_t pieces[] = {1, 20, 0};

    for (size_t p = 0; p < sizeof pieces / sizeof *pieces; p++) {
        struct hy3_dataset_options o = options_for(here("no.json"), "no");
        struct hy3_dataset_summary sum = {0};
        struct hy3_dataset *d = NULL;

        write_text(here("no.json"), text);
        o.max_bad_samples = 9;
        hy3_portions_override(pieces[p]);
        assert_all(hy3_dataset_open(MPI_COMM_WORLD, &o, &d, &sum) == HY3_EFORMAT);
        assert_all(strstr(hy3_error_text(), "no.json' is not valid JSON: ") != NULL);
        if (hy3_size(MPI_COMM_WORLD) == 1 && !strstr(hy3_error_text(), place))
            fail_msg("%s is not in %s of %s", place, hy3_error_text(), text);
    }
    hy3_portions_override(0);
}

static void a_file_whose_brackets_do_not_match_is_refused(void **state)
{
    static const char *const texts[] = {"[\n" GOOD ",\n" GOOD ",\n{\"messages\": [",
                                        "[\n" GOOD "] } " GOOD, "{\n\"messages\":[]}\n]\n" GOOD,
                                        "[\n" GOOD ", \"x]"};

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_no_json(texts[i], "");
}

static void a_comma_or_a_word_too_many_is_refused_with_its_place(void **state)
{
    static const struct {
        const char *text, *what;
        int64_t at; /* from the end of the text */
    } cases[] = {
        {"[\n" GOOD "," GOOD "] rubbish", "something stands outside of its list", 7},
        {"[\n" GOOD "], [" GOOD "]", "something stands outside of its list", 3 + sizeof GOOD},
        {"[\n" GOOD "]\n" GOOD, "something stands outside of its list", sizeof GOOD - 1},
        {"[\n" GOOD "  " GOOD "]", "a comma is missing between two items", sizeof GOOD},
        {"[\n" GOOD ",\n,\n" GOOD "]", "an item is missing", 2 + sizeof GOOD},
        {"[\n" GOOD ",\n]", "an item is missing", 1},
        {"[\n," GOOD "]", "an item is missing", 1 + sizeof GOOD},
        {"[\n" GOOD ", 7 8]", "a comma is missing between two items", 2},
        {"[\n" GOOD ", 7{}]", "a comma is missing between two items", 3},
    };

    char place[128];

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        snprintf(place, sizeof place, "%s, at byte %lld", cases[i].what,
                 (long long)((int64_t)strlen(cases[i].text) - cases[i].at));
        assert_no_json(cases[i].text, place);
    }
}

static void an_item_too_long_is_bad_and_the_next_one_is_read(void **state)
{
    struct hy3_dataset_options o = options_for(here("long.json"), "long");
    struct hy3_dataset_summary sum = {0};
    struct hy3_dataset *d = NULL;

    (void)state;
    write_text(here("long.json"),
               "[\n" GOOD
               ", {\"x\": \"0123456789012345678901234567890123456789012345678901234567"
               "890123456789012345678901234567890123456789012345678901234567890123456789\"}, " GOOD
               "]");
    o.max_bad_samples = 1;
    hy3_lines_override(120);
    assert_all(hy3_dataset_open(MPI_COMM_WORLD, &o, &d, &sum) == HY3_OK);
    hy3_lines_override(0);
    assert_all(sum.samples == 2 && sum.bad == 1 && sum.lines == 3);
    hy3_dataset_close(d);
}

static void max_samples_counts_each_file(void **state)
{
    static const int sets[] = {0, 0, 1};
    const char *files[3];
    struct hy3_dataset_options o = options_for("", "each");
    struct hy3_dataset_summary sum = {0};
    struct hy3_dataset *d = NULL;

    (void)state;
    write_text(here("two.json"), "[\n" GOOD ",\n" GOOD "]");
    files[0] = files[1] = files[2] = here("two.json");
    o.files = files;
    o.file_count = 3;
    o.max_samples = 1;
    assert_all(hy3_dataset_open(MPI_COMM_WORLD, &o, &d, &sum) == HY3_OK && sum.samples == 3);
    hy3_dataset_close(d);
    o.sets = sets;
    o.max_samples = 3;
    o.overwrite = true;
    assert_all(hy3_dataset_open(MPI_COMM_WORLD, &o, &d, &sum) == HY3_OK && sum.samples == 5);
    hy3_dataset_close(d);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layout_gives_the_same_samples),
        cmocka_unit_test(what_is_no_item_is_bad_and_named),
        cmocka_unit_test(a_file_whose_brackets_do_not_match_is_refused),
        cmocka_unit_test(a_comma_or_a_word_too_many_is_refused_with_its_place),
        cmocka_unit_test(an_item_too_long_is_bad_and_the_next_one_is_read),
        cmocka_unit_test(max_samples_counts_each_file),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
