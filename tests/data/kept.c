/* SPDX-License-Identifier: Apache-2.0 */
/* kept.c - what a run that was ended has tokenized is taken over, whole and of the same identity,
 * on any number of ranks; the bytes are those of a run that nobody disturbed. */
#include "data/fixture.h"
#include "data/parts.h"
#include "data/portions.h"

#include <dirent.h>

enum { PIECE = 300 };

/* The golden lines with keys that are not read, blank and dropped lines, and a bad one at the
 * end, which ends a run when all else is done. */
static void write_lines(const char *name)
{
    static const char *const ends[] = {
        "\n{\"messages\":[{\"role\":\"user\",\"content\":\"nobody answers\"}]}\n",
        "{\"id\":1,\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":"
        "\"assistant\",\"name\":\"n\",\"loss_weight\":0.5,\"content\":\"b\"}]}\n",
        "{\"messages\":7}\n"};
    char *lines, *text = NULL;
    size_t size;
    FILE *out;

    assert_ok(hy3_file_read(hy3_golden("a/dataset.jsonl"), 1 << 24, &lines, &size));
    out = open_memstream(&text, &size);
    assert_non_null(out);
    fprintf(out, "%s%s%s%s%s", lines, ends[0], ends[1], ends[1], ends[2]);
    assert_int_equal(fclose(out), 0);
    write_text(here(name), text);
    free(text);
    free(lines);
}

/* Files of parts in the cache; their first name in `path`. */
static int parts_in(const char *cache, char path[HY3_PATH_MAX])
{
    DIR *open = opendir(here(cache));
    const struct dirent *entry;
    int count = 0;

    while (open && (entry = readdir(open)))
        if (strstr(entry->d_name, ".parts.") && count++ == 0)
            snprintf(path, HY3_PATH_MAX, "%s/%s", here(cache), entry->d_name);
    if (open)
        closedir(open);
    hy3_barrier(MPI_COMM_WORLD, "testing");
    return count;
}

/* A run on `ranks` of the ranks; *sum of those that took part. */
static hy3_status run(int ranks, const struct hy3_dataset_options *o,
                      struct hy3_dataset_summary *sum)
{
    struct hy3_dataset *dataset = NULL;
    hy3_status status = HY3_OK;
    MPI_Comm some;

    MPI_Comm_split(MPI_COMM_WORLD, rank() < ranks ? 0 : MPI_UNDEFINED, rank(), &some);
    if (some != MPI_COMM_NULL) {
        status = hy3_dataset_open(some, o, &dataset, sum);
        hy3_dataset_close(dataset);
        MPI_Comm_free(&some);
    }
    hy3_barrier(MPI_COMM_WORLD, "testing");
    return rank() < ranks ? status : HY3_OK;
}

/* Ends a run in "cache" on `ranks`, or as many as there are, all of whose pieces are kept. */
static struct hy3_dataset_options end_run(int ranks)
{
    struct hy3_dataset_options o = options_for(here("lines.jsonl"), "cache");
    struct hy3_dataset_summary sum = {0};
    hy3_status status = run(ranks, &o, &sum);
    char path[HY3_PATH_MAX];

    assert_all(rank() >= ranks || status == HY3_EFORMAT);
    assert_all(parts_in("cache", path) ==
               (ranks < hy3_size(MPI_COMM_WORLD) ? ranks : hy3_size(MPI_COMM_WORLD)));
    o.max_bad_samples = 1;
    return o;
}

static void assert_same_files(void)
{
    struct hy3_dataset_options o = options_for(here("lines.jsonl"), "calm");
    struct hy3_dataset_summary sum = {0};
    char path[HY3_PATH_MAX], tokens[HY3_PATH_MAX], rejects[HY3_PATH_MAX];

    o.max_bad_samples = 1;
    o.overwrite = true;
    assert_all(run(1, &o, &sum) == HY3_OK && (rank() > 0 || sum.taken_over == 0));
    snprintf(tokens, sizeof tokens, "%s", here("calm/train.h5"));
    snprintf(rejects, sizeof rejects, "%s", here("calm/train.rejected.jsonl"));
    assert_all(same_bytes(tokens, here("cache/train.h5")));
    assert_all(same_bytes(rejects, here("cache/train.rejected.jsonl")));
    assert_all(parts_in("cache", path) == 0 && parts_in("calm", path) == 0);
}

static void a_run_that_was_ended_is_continued_on_any_number_of_ranks(void **state)
{
    static const int ranks[][2] = {{1, 3}, {3, 1}, {2, 3}, {3, 2}};

    (void)state;
    hy3_portions_override(PIECE);
    write_lines("lines.jsonl");
    for (size_t i = 0; i < sizeof ranks / sizeof *ranks; i++) {
        struct hy3_dataset_options o = end_run(ranks[i][0]);
        struct hy3_dataset_summary sum = {0};

        o.overwrite = true;
        assert_all(run(ranks[i][1], &o, &sum) == HY3_OK);
        assert_all(rank() >= ranks[i][1] || sum.taken_over >= 10);
        assert_all(rank() >= ranks[i][1] || strstr(sum.unread, "messages[].name (2 lines)"));
        assert_same_files();
        if (rank() == 0)
            assert_ok(hy3_file_remove(here("cache/train.h5")));
        hy3_barrier(MPI_COMM_WORLD, "testing");
    }
}

static void a_damaged_or_cut_record_is_made_again(void **state)
{
    static const int64_t cuts[] = {0, 3, 40, 500};

    (void)state;
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        struct hy3_dataset_options o = end_run(2);
        struct hy3_dataset_summary sum = {0};
        char path[HY3_PATH_MAX];
        int64_t bytes;

        parts_in("cache", path);
        assert_ok(hy3_file_size(path, &bytes));
        flip(path, 300); /* in the first record */
        if (rank() == 0)
            assert_int_equal(truncate(path, bytes - cuts[i]), 0);
        o.overwrite = true;
        assert_all(run(3, &o, &sum) == HY3_OK && sum.taken_over > 5);
        assert_same_files();
        if (rank() == 0)
            assert_ok(hy3_file_remove(here("cache/train.h5")));
        hy3_barrier(MPI_COMM_WORLD, "testing");
    }
}

static void what_is_of_another_identity_is_removed(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct hy3_dataset_options o = end_run(2);
        struct hy3_dataset_summary sum = {0};
        char path[HY3_PATH_MAX];

        o.max_seq_length -= i == 0;
        o.content_tokens = i == 1 ? HY3_CONTENT_TEXT : o.content_tokens;
        if (i == 2)
            write_lines("lines.jsonl"); /* the same bytes at another time */
        assert_all(run(3, &o, &sum) == HY3_OK && sum.taken_over == 0);
        assert_all(parts_in("cache", path) == 0);
        if (rank() == 0)
            assert_ok(hy3_file_remove(here("cache/train.h5")));
        hy3_barrier(MPI_COMM_WORLD, "testing");
    }
}

/* Files of less than a piece, of which every other has weights, so that a piece has portions with
 * and without. */
static void weights_are_taken_over_portion_by_portion(void **state)
{
    enum { FILES = 24 };

    static char names[FILES][HY3_PATH_MAX];
    const char *files[FILES];
    struct hy3_dataset_options o = options_for(here("bad.jsonl"), "cache");
    struct hy3_dataset_summary sum = {0};
    struct hy3_dataset *dataset;
    char path[HY3_PATH_MAX], tokens[HY3_PATH_MAX], text[512];
    hy3_status status;

    (void)state;
    hy3_portions_override(PIECE);
    for (int f = 0; f < FILES; f++) {
        snprintf(names[f], sizeof names[f], "%s.%d", here("weights"), f);
        snprintf(text, sizeof text,
                 "{\"messages\":[{\"role\":\"user\",\"content\":\"q\"},{\"role\":\"assistant\","
                 "\"content\":\"answer %d\"%s%d}]}\n",
                 f, f % 2 == 0 ? ",\"loss_weight\":0.25" : ",\"weight\":1.0", f % 4);
        write_text(names[f], f == FILES - 1 ? "{\"messages\":7}\n" : text);
        files[f] = names[f];
    }
    o.files = files;
    o.file_count = FILES;
    status = run(2, &o, &sum);
    assert_all(rank() >= 2 || status == HY3_EFORMAT);
    assert_all(parts_in("cache", path) > 0);
    o.max_bad_samples = 1;
    assert_all(run(3, &o, &sum) == HY3_OK && sum.taken_over > 5);
    o.cache_directory = here("calm");
    o.overwrite = true;
    snprintf(tokens, sizeof tokens, "%s", here("calm/train.h5"));
    assert_all(hy3_dataset_open(MPI_COMM_WORLD, &o, &dataset, &sum) == HY3_OK);
    assert_all(hy3_dataset_is_weighted(dataset) && sum.taken_over == 0);
    hy3_dataset_close(dataset);
    assert_all(same_bytes(tokens, here("cache/train.h5")));
    hy3_portions_override(0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_that_was_ended_is_continued_on_any_number_of_ranks),
        cmocka_unit_test(a_damaged_or_cut_record_is_made_again),
        cmocka_unit_test(what_is_of_another_identity_is_removed),
        cmocka_unit_test(weights_are_taken_over_portion_by_portion),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
