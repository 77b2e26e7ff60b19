/* SPDX-License-Identifier: Apache-2.0 */
/* dataset.c - JSONL to a token file and back, on any number of ranks. */
#include "data/dataset.h"

#include "base/memory.h"
#include "data/fingerprint.h"
#include "data/fixture.h"
#include "data/lines.h"
#include "data/token_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

static void check_sample(const struct hy3_dataset *d, int64_t i, const json_t *wanted)
{
    const json_t *ids = json_object_get(wanted, "ids"), *labels = json_object_get(wanted, "labels");
    size_t length = json_array_size(ids);
    int32_t got[64];
    uint8_t mask[64];
    char where[HY3_PATH_MAX], line[32];

    snprintf(line, sizeof line, ".jsonl:%lld",
             (long long)json_integer_value(json_object_get(wanted, "line")));
    hy3_dataset_where(d, i, where, sizeof where);
    assert_all(strlen(where) > strlen(line) &&
               strcmp(where + strlen(where) - strlen(line), line) == 0);
    assert_all(hy3_dataset_length(d, i) == (int64_t)length);
    assert_all(hy3_dataset_read(d, i, got, mask) == HY3_OK);
    for (size_t t = 0; t < length; t++) {
        json_int_t label = json_integer_value(json_array_get(labels, t));

        assert_all(got[t] == json_integer_value(json_array_get(ids, t)));
        assert_all(mask[t] == (label != -100));
    }
}

static void check_golden(const struct hy3_dataset_options *o)
{
    json_t *golden = hy3_golden_json("a/dataset_tokens.json"), *wanted;
    json_t *samples = json_object_get(golden, "samples");
    struct hy3_dataset *d;
    struct hy3_dataset_summary sum;
    size_t i;

    assert_ok(hy3_dataset_open(MPI_COMM_WORLD, o, &d, &sum));
    assert_all(!sum.reused && sum.samples == 30 && sum.lines == 30 && sum.bad + sum.dropped == 0);
    assert_all(sum.unlabelled == 1);
    assert_all(hy3_dataset_count(d) == (int64_t)json_array_size(samples));
    json_array_foreach(samples, i, wanted) check_sample(d, (int64_t)i, wanted);
    hy3_dataset_close(d);
    json_decref(golden);
}

static void golden_samples_come_back(void **state)
{
    struct hy3_dataset_options o = options_for(hy3_golden("a/dataset.jsonl"), "golden");

    (void)state;
    o.keep_unlabelled = true; /* sample 7 of the reference has no label left after truncation */
    check_golden(&o);
}

/* Opens the golden data with a length and what becomes of longer samples. */
static void open_golden(int64_t length, enum hy3_truncation truncation, struct hy3_dataset **d,
                        struct hy3_dataset_summary *sum)
{
    struct hy3_dataset_options o = options_for(hy3_golden("a/dataset.jsonl"), "long");

    o.max_seq_length = length;
    o.truncation = truncation;
    assert_all(hy3_dataset_open(MPI_COMM_WORLD, &o, d, sum) == HY3_OK && !sum->reused);
}

static void a_long_sample_loses_its_end_or_beginning_or_is_left_out(void **state)
{
    enum { MOST = 4096, LENGTH = 64 };

    static int32_t all[MOST], part[MOST];
    static uint8_t mask[MOST];
    struct hy3_dataset *whole, *right, *left, *fit;
    struct hy3_dataset_summary sums[4];
    int64_t kept = 0;

    (void)state;
    open_golden(MOST, HY3_TRUNCATE_RIGHT, &whole, &sums[0]);
    open_golden(LENGTH, HY3_TRUNCATE_RIGHT, &right, &sums[1]);
    open_golden(LENGTH, HY3_TRUNCATE_LEFT, &left, &sums[2]);
    open_golden(LENGTH, HY3_TRUNCATE_DELETE, &fit, &sums[3]);
    assert_all(sums[0].samples == 30 && sums[1].truncated > 0 && sums[3].truncated == 0);
    assert_all(sums[2].samples == 30 && sums[3].dropped == 30 - sums[3].samples);
    for (int64_t i = 0; i < 30; i++) {
        int64_t length = hy3_dataset_length(whole, i), cut = length > LENGTH ? LENGTH : length;

        assert_all(hy3_dataset_read(whole, i, all, mask) == HY3_OK);
        assert_all(hy3_dataset_length(left, i) == cut);
        assert_all(hy3_dataset_read(left, i, part, mask) == HY3_OK);
        assert_all(memcmp(part, all + length - cut, (size_t)cut * sizeof *all) == 0);
        if (length > LENGTH)
            continue;
        assert_all(hy3_dataset_read(fit, kept++, part, mask) == HY3_OK);
        assert_all(memcmp(part, all, (size_t)length * sizeof *all) == 0);
    }
    assert_all(kept == sums[3].samples && kept < 30);
    hy3_dataset_close(whole);
    hy3_dataset_close(right);
    hy3_dataset_close(left);
    hy3_dataset_close(fit);
}

static void pieces_may_cut_lines_anywhere(void **state)
{
    static const int64_t pieces[] = {1, 37, 256, 1000};
    struct hy3_dataset_options o = options_for(hy3_golden("a/dataset.jsonl"), "cut");

    (void)state;
    o.keep_unlabelled = true; /* sample 7 of the reference has no label left after truncation */
    o.overwrite = true;
    hy3_token_file_collective(0);
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
        hy3_portions_override(pieces[i]);
        check_golden(&o);
    }
    hy3_portions_override(0);
    hy3_token_file_collective(1 << 26);
}

/* Opens on the first `ranks` ranks, with a cache of its own. */
static hy3_status open_on(int ranks, struct hy3_dataset_options *o, struct hy3_dataset_summary *sum)
{
    hy3_status status = HY3_OK;
    struct hy3_dataset *d = NULL;
    MPI_Comm comm;
    char cache[32];

    snprintf(cache, sizeof cache, "%s-%d", hy3_path_name(o->cache_directory), ranks);
    o->cache_directory = here(cache);
    MPI_Comm_split(MPI_COMM_WORLD, rank() < ranks, 0, &comm);
    if (rank() < ranks)
        status = hy3_dataset_open(comm, o, &d, sum);
    hy3_dataset_close(d);
    MPI_Comm_free(&comm);
    return status;
}

static const char *in_cache(const char *cache, int ranks, const char *name)
{
    char path[64];

    snprintf(path, sizeof path, "%s-%d/%s", cache, ranks, name);
    return here(path);
}

static const char mixed[] =
    "{\"user_id\":7,\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\","
    "\"content\":\"one\"}]}\n"
    "\n"
    "{\"messages\":[{\"role\":\"user\",\"content\":\"b\"}]}\r\n"
    "{\"messages\":[}\n"
    "{\"messages\":[{\"role\":\"user\",\"content\":\"c\"},{\"role\":\"assistant\","
    "\"content\":\"two\"}]}\r\n"
    "{\"messages\":[{\"role\":\"wizard\",\"content\":\"\xc3\xa9\"}]}\n"
    "   \t\n"
    "{\"user_id\":8,\"messages\":[{\"role\":\"user\",\"content\":\"d\"},{\"role\":\"assistant\","
    "\"content\":\"three\"}]}";

/* Two of the three samples of `mixed`, the first and the last, have a key that is not read. */
static bool has_unread(const struct hy3_dataset_summary *sum, int64_t limit)
{
    const char *text = limit == 0  ? "user_id (4 lines), id (1 line)"
                       : limit > 2 ? "user_id (2 lines)"
                                   : "user_id (1 line)";

    return strncmp(sum->unread, text, strlen(text)) == 0;
}

static void a_line_counts_once_however_many_keys_are_not_read(void **state)
{
    static char line[8000];
    size_t used = (size_t)snprintf(line, sizeof line, "{");
    struct hy3_dataset_options o = options_for("", "keys");
    struct hy3_dataset_summary sum;
    const char *file = here("keys.jsonl"), *const *files = &file;

    (void)state;
    for (int i = 0; i < 300; i++)
        used += (size_t)snprintf(line + used, sizeof line - used, "\"zq%03d\":1,", i);
    snprintf(line + used, sizeof line - used,
             "\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\","
             "\"content\":\"b\"}]}\n");
    write_text(file, line);
    o.files = files;
    o.file_count = 1;
    assert_all(open_on(1, &o, &sum) == HY3_OK);
    assert_all(rank() > 0 || strncmp(sum.unread, "(others) (1 line), zq000 (1 line)", 33) == 0);
}

static void the_number_of_ranks_does_not_show_in_the_files(void **state)
{
    static const int64_t limits[] = {0, 1, 2, 17, 20};
    static const int together[3];
    const char *files[3];

    (void)state;
    write_text(here("mixed.jsonl"), mixed);
    hy3_portions_override(200);
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        char cache[32];
        struct hy3_dataset_summary one, sum;

        snprintf(cache, sizeof cache, "ranks%lld", (long long)limits[i]);
        hy3_token_file_collective(i == 0 ? 0 : 1 << 26);
        for (int ranks = 1; ranks <= hy3_size(MPI_COMM_WORLD); ranks++) {
            struct hy3_dataset_options o = options_for("", cache);

            files[0] = here("mixed.jsonl");
            files[1] = hy3_golden("a/dataset.jsonl");
            files[2] = here("mixed.jsonl");
            o.files = files;
            o.file_count = 3;
            o.sets = together; /* max_samples counts through all of them */
            o.max_samples = limits[i];
            o.max_bad_samples = 100;
            assert_all(open_on(ranks, &o, &sum) == HY3_OK);
            if (ranks == 1)
                one = sum;
            assert_all(rank() >= ranks || has_unread(&sum, limits[i]));
            assert_all(limits[i] == 0 || rank() >= ranks || sum.samples == limits[i]);
            assert_all(rank() > 0 || (one.lines == sum.lines && one.bad == sum.bad &&
                                      one.dropped == sum.dropped && one.longest == sum.longest));
            assert_all(
                same_bytes(in_cache(cache, 1, "train.h5"), in_cache(cache, ranks, "train.h5")));
            assert_all(same_bytes(in_cache(cache, 1, "train.rejected.jsonl"),
                                  in_cache(cache, ranks, "train.rejected.jsonl")));
        }
    }
    hy3_portions_override(0);
}

static void what_is_left_out_stands_in_rejected_jsonl(void **state)
{
    struct hy3_dataset_options o = options_for(here("mixed.jsonl"), "rejected");
    struct hy3_dataset_summary sum;
    static const int lines[] = {3, 4, 6};
    static const char *const words[] = {"no label token", "JSON", "wizard"};
    char *text, *line, *rest;
    size_t size, count = 0;

    (void)state;
    write_text(here("mixed.jsonl"), mixed);
    hy3_portions_override(50);
    o.max_bad_samples = 2;
    assert_ok(open_and_close(&o, &sum));
    hy3_portions_override(0);
    assert_all(sum.lines == 8 && sum.samples == 3 && sum.bad == 2 && sum.dropped == 1);
    assert_ok(hy3_file_read(here("rejected/train.rejected.jsonl"), 1 << 20, &text, &size));
    for (line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest), count++) {
        json_t *object = json_loads(line, 0, NULL);

        assert_all(count < 3);
        assert_all(json_object_size(object) == 3);
        assert_all(json_integer_value(json_object_get(object, "line")) == lines[count]);
        assert_all(strcmp(json_string_value(json_object_get(object, "file")), single[0]) == 0);
        assert_all(strstr(json_string_value(json_object_get(object, "reason")), words[count]) !=
                   NULL);
        json_decref(object);
    }
    free(text);
    assert_all(count == 3);
}

static void too_many_bad_lines_are_all_named(void **state)
{
    struct hy3_dataset_options o = options_for(here("mixed.jsonl"), "bad");
    const char *words = "mixed.jsonl:6: ";

    (void)state;
    write_text(here("mixed.jsonl"), mixed);
    o.max_bad_samples = 1;
    assert_fails(HY3_EFORMAT, words, open_and_close(&o, NULL));
    assert_all(strstr(hy3_error_text(), "mixed.jsonl:4: ") != NULL);
    assert_all(!hy3_path_exists(here("bad/train.h5")));
    o.max_bad_samples = 2; /* what was allowed once is not allowed for ever */
    assert_ok(open_and_close(&o, NULL));
    o.max_bad_samples = 0;
    assert_fails(HY3_EFORMAT, words, open_and_close(&o, NULL));
}

static void a_hopeless_file_ends_early_with_twenty_lines(void **state)
{
    struct hy3_dataset_options o = options_for(here("hopeless.jsonl"), "hopeless");
    char text[6000];
    int listed = 0;

    (void)state;
    memset(text, 'x', sizeof text);
    for (size_t i = 1; i < sizeof text; i += 2)
        text[i] = '\n';
    write_file(here("hopeless.jsonl"), text, sizeof text);
    hy3_portions_override(100);
    assert_fails(HY3_EFORMAT, "more, see '", open_and_close(&o, NULL));
    hy3_portions_override(0);
    for (const char *at = hy3_error_text(); (at = strstr(at, "hopeless.jsonl:")); at++)
        listed++;
    assert_all(listed > 0 && listed <= 20);
    assert_all(strstr(hy3_error_text(), "hopeless.jsonl:1: ") != NULL);
}

static void check_bad_input(const json_t *entry)
{
    const char *file = json_string_value(json_object_get(entry, "file"));
    const char *expect = json_string_value(json_object_get(entry, "expect"));
    json_int_t line = json_integer_value(json_object_get(entry, "line"));
    char name[HY3_PATH_MAX], words[300];
    struct hy3_dataset_options o;
    hy3_status status;

    snprintf(name, sizeof name, "a/bad_inputs/%s", file);
    snprintf(words, sizeof words, line > 0 ? "%s:%lld: " : "%s", file, (long long)line);
    o = options_for(hy3_golden(name), "inputs");
    o.overwrite = true;
    status = open_and_close(&o, NULL);
    if (strcmp(expect, "reject") == 0)
        assert_fails(HY3_EFORMAT, words, status);
    else if (strcmp(expect, "accept") == 0)
        assert_ok(status);
    else
        assert_all(status == HY3_OK || status == HY3_EFORMAT);
}

static void hostile_files_are_refused_by_line_and_good_ones_work(void **state)
{
    json_t *list = hy3_golden_json("a/bad_inputs.json"), *entry;
    size_t i, seen = 0;

    (void)state;
    hy3_portions_override(64);
    json_array_foreach(json_object_get(list, "files"), i, entry)
    {
        if (strcmp(json_string_value(json_object_get(entry, "kind")), "jsonl") == 0 &&
            json_is_string(json_object_get(entry, "file"))) {
            check_bad_input(entry);
            seen++;
        }
    }
    hy3_portions_override(0);
    assert_all(seen > 25);
    json_decref(list);
}

static void one_broken_line_among_ten_thousand_is_named(void **state)
{
    static const char good[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"x\"}]}\n";
    struct hy3_dataset_options o = options_for(here("long.jsonl"), "long");
    size_t size = 0;
    char *text;

    (void)state;
    assert_ok(hy3_alloc(&text, 10000, sizeof good));
    for (int i = 1; i <= 10000; i++)
        size += (size_t)snprintf(text + size, sizeof good, "%s",
                                 i == 7346 ? "{\"messages\":[}\n" : good);
    write_file(here("long.jsonl"), text, size);
    hy3_free(text);
    hy3_portions_override(5000);
    assert_fails(HY3_EFORMAT, "long.jsonl:7346: ", open_and_close(&o, NULL));
    hy3_portions_override(0);
}

static void a_line_too_long_is_bad_and_the_next_one_is_read(void **state)
{
    struct hy3_dataset_options o = options_for(here("wide.jsonl"), "wide");
    struct hy3_dataset_summary sum;
    char text[3000], where[HY3_PATH_MAX];
    struct hy3_dataset *d;

    (void)state;
    memset(text, 'x', sizeof text);
    text[2000] = '\n';
    memcpy(text + 2001, mixed, strcspn(mixed, "\n") + 1);
    write_file(here("wide.jsonl"), text, 2001 + strcspn(mixed, "\n") + 1);
    hy3_portions_override(300);
    hy3_lines_override(1000);
    assert_fails(HY3_EFORMAT, "wide.jsonl:1: ", open_and_close(&o, NULL));
    o.max_bad_samples = 1;
    assert_ok(hy3_dataset_open(MPI_COMM_WORLD, &o, &d, &sum));
    hy3_portions_override(0);
    hy3_lines_override(0);
    hy3_dataset_where(d, 0, where, sizeof where);
    hy3_dataset_close(d);
    assert_all(sum.samples == 1 && sum.bad == 1 && sum.lines == 2);
    assert_all(strstr(where, "wide.jsonl:2") != NULL);
}

static void many_small_files_keep_their_names_and_lines(void **state)
{
    enum { FILES = 100 };

    char *names[FILES], text[200], name[32], where[HY3_PATH_MAX];
    struct hy3_dataset_options o = options_for("", "small");
    struct hy3_dataset *d;

    (void)state;
    for (int f = 0; f < FILES; f++) {
        snprintf(name, sizeof name, "small-%d.jsonl", f);
        snprintf(text, sizeof text, "%s%.*s", f % 3 ? "\n" : "", (int)strcspn(mixed, "\n"), mixed);
        assert_ok(hy3_strdup(here(name), &names[f]));
        if (rank() == 0)
            assert_ok(hy3_output_replace(names[f], text, f == 50 ? 0 : strlen(text)));
    }
    hy3_barrier(MPI_COMM_WORLD, "testing");
    o.files = (const char *const *)names;
    o.file_count = FILES;
    hy3_portions_override(500);
    assert_ok(hy3_dataset_open(MPI_COMM_WORLD, &o, &d, NULL));
    hy3_portions_override(0);
    assert_all(hy3_dataset_count(d) == FILES - 1);
    for (int f = 0; f < FILES; f++) {
        snprintf(text, sizeof text, "small-%d.jsonl:%d", f, f % 3 ? 2 : 1);
        hy3_dataset_where(d, f < 50 ? f : f - 1, where, sizeof where);
        assert_all(f == 50 || strstr(where, text) != NULL);
        hy3_free(names[f]);
    }
    hy3_dataset_close(d);
}

static void a_missing_file_is_told_before_any_work(void **state)
{
    const char *files[2] = {hy3_golden("a/dataset.jsonl"), here("no-such.jsonl")};
    struct hy3_dataset_options o = options_for("", "missing");

    (void)state;
    o.files = files;
    o.file_count = 2;
    assert_fails(HY3_EIO, "no-such.jsonl", open_and_close(&o, NULL));
    assert_all(!hy3_path_exists(here("missing")));
}

static void a_file_that_fits_is_used_again_and_no_other(void **state)
{
    struct hy3_dataset_options o = options_for(here("again.jsonl"), "again");
    char text[sizeof mixed];

    (void)state;
    memcpy(text, mixed, sizeof text);
    write_text(here("again.jsonl"), text);
    o.max_bad_samples = 2;
    assert_all(!is_reused(&o));
    assert_all(is_reused(&o));
    o.max_seq_length = 63;
    assert_all(!is_reused(&o));
    o.max_samples = 1;
    assert_all(!is_reused(&o));
    assert_all(is_reused(&o));
    o.max_samples = 0;
    assert_all(!is_reused(&o));
    o.tokenizer_directory = hy3_golden("a/tokenizer-final");
    assert_all(!is_reused(&o));
    assert_all(is_reused(&o));
    o.overwrite = true;
    assert_all(!is_reused(&o));
    o.overwrite = false;
    write_text(here("again.jsonl"), text); /* another time, the same bytes */
    assert_all(is_reused(&o));
    *strstr(text, "one") = 'O'; /* the same size, another letter */
    write_text(here("again.jsonl"), text);
    assert_all(!is_reused(&o));
}

/* Sampling reads 4 KiB every 8 KiB of this; the line that is changed lies between. */
static void a_change_between_the_samples_of_a_file_with_its_old_time_is_noticed(void **state)
{
    enum { SIZE = 1 << 19, AT = 88000 };

    static const struct timespec times[2] = {{.tv_sec = 1000000000}, {.tv_sec = 1000000000}};
    static char text[SIZE + 1];
    struct hy3_dataset_options o = options_for(here("large.jsonl"), "large");
    char *line = text + AT;

    (void)state;
    memset(text, '\n', SIZE);
    memcpy(line, mixed, strcspn(mixed, "\n"));
    for (int turn = 0; turn < 3; turn++) {
        if (turn == 2)
            *strstr(line, "one") = 'O';
        write_text(here("large.jsonl"), text);
        if (rank() == 0)
            utimensat(AT_FDCWD, here("large.jsonl"), times, 0);
        hy3_barrier(MPI_COMM_WORLD, "testing");
        assert_all(is_reused(&o) == (turn == 1));
    }
}

/* What becomes of a file of which `before` was read when it is `now` at the end. */
static hy3_status verify(const char *before, const char *now)
{
    /* two writes within a tick of the clock have one time */
    static const struct timespec later[2] = {{.tv_sec = 2000000000}, {.tv_sec = 2000000000}};
    const char *file = here("live.jsonl"), *const *files = &file;
    struct hy3_source *sources;
    hy3_status status;
    uint64_t was;

    write_text(file, before);
    assert_ok(hy3_sources_stat(MPI_COMM_WORLD, files, 1, &sources));
    assert_ok(hy3_fingerprint_read(MPI_COMM_WORLD, sources, 1, 16, 2, &was));
    write_text(file, now);
    if (rank() == 0)
        utimensat(AT_FDCWD, file, later, 0);
    hy3_barrier(MPI_COMM_WORLD, "testing");
    status = hy3_fingerprint_verify(MPI_COMM_WORLD, sources, 1, 16, 2, was);
    hy3_sources_free(sources, 1);
    return status;
}

static void a_file_that_was_changed_while_it_was_read_is_refused(void **state)
{
    static const char text[] = "line one\nline two\nline three\n";

    (void)state;
    assert_ok(verify(text, text)); /* another time only */
    assert_ok(verify(text, "line one\nline two\nline three\nline four\n"));
    assert_ok(verify(text, "line one\nline two\nline three\nline"));
    assert_fails(HY3_EFORMAT, "live.jsonl' was changed while it was read; start again",
                 verify(text, "line one\nline TWO\nline three\n"));
    assert_fails(HY3_EFORMAT, "live.jsonl' was changed while it was read; start again",
                 verify(text, "line one\nline TWO\nline three\nline four\n"));
    assert_fails(HY3_EFORMAT, "it had 29 bytes and has 9 now", verify(text, "line one\n"));
}

/* Which rank runs out of memory, and when, must not matter for how it ends. */
static void running_out_of_memory_ends_cleanly_on_all_ranks(void **state)
{
    struct hy3_dataset_options o = options_for(hy3_golden("a/dataset.jsonl"), "memory");
    hy3_status status = HY3_ENOMEM;
    int failures = 0;

    (void)state;
    o.overwrite = true;
    for (int64_t n = 1; status != HY3_OK; n += 1 + n / 2, failures++) {
        if (rank() == hy3_size(MPI_COMM_WORLD) - 1)
            hy3_alloc_fail_at(n);
        status = open_and_close(&o, NULL);
        hy3_alloc_fail_at(0);
        assert_all(status == HY3_OK || status == HY3_ENOMEM);
    }
    assert_all(failures > 5);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_samples_come_back),
        cmocka_unit_test(a_long_sample_loses_its_end_or_beginning_or_is_left_out),
        cmocka_unit_test(pieces_may_cut_lines_anywhere),
        cmocka_unit_test(a_line_counts_once_however_many_keys_are_not_read),
        cmocka_unit_test(the_number_of_ranks_does_not_show_in_the_files),
        cmocka_unit_test(what_is_left_out_stands_in_rejected_jsonl),
        cmocka_unit_test(too_many_bad_lines_are_all_named),
        cmocka_unit_test(a_hopeless_file_ends_early_with_twenty_lines),
        cmocka_unit_test(hostile_files_are_refused_by_line_and_good_ones_work),
        cmocka_unit_test(one_broken_line_among_ten_thousand_is_named),
        cmocka_unit_test(a_line_too_long_is_bad_and_the_next_one_is_read),
        cmocka_unit_test(many_small_files_keep_their_names_and_lines),
        cmocka_unit_test(a_missing_file_is_told_before_any_work),
        cmocka_unit_test(a_file_that_fits_is_used_again_and_no_other),
        cmocka_unit_test(a_change_between_the_samples_of_a_file_with_its_old_time_is_noticed),
        cmocka_unit_test(a_file_that_was_changed_while_it_was_read_is_refused),
        cmocka_unit_test(running_out_of_memory_ends_cleanly_on_all_ranks),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
