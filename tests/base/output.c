/* SPDX-License-Identifier: Apache-2.0 */
/* output.c - the old file or the new one, never a part; replacements and copies. */
#include "base/output.h"

#include "base/memory.h"
#include "support/test.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *path_of(const char *name)
{
    static char path[HY3_PATH_MAX + 64];

    snprintf(path, sizeof path, "%s/%s", hy3_test_directory(), name);
    return path;
}

static void assert_content(const char *name, const char *expected)
{
    char *text;
    size_t size;

    assert_ok(hy3_file_read(path_of(name), 100, &text, &size));
    assert_string_equal(text, expected);
    hy3_free(text);
}

/* Two writers share the temporary file; the old file stays until one of them publishes. */
static void a_file_appears_when_it_is_published(void **state)
{
    struct hy3_output out, other;
    struct stat info;

    (void)state;
    assert_ok(hy3_output_replace(path_of("p"), "old", 3));
    assert_ok(hy3_output_name(path_of("p"), NULL, &out));
    assert_ok(hy3_output_create(&out));
    assert_string_equal(hy3_path_name(out.part), "p.part");
    assert_ok(hy3_output_claim(&out, 6));
    assert_ok(hy3_output_name(path_of("p"), NULL, &other));
    assert_ok(hy3_output_open(&other));
    assert_ok(hy3_file_write_at(out.fd, "abc", 3, 0, out.part));
    assert_ok(hy3_file_write_at(other.fd, "def", 3, 3, other.part));
    assert_ok(hy3_output_flush(&other));
    assert_ok(hy3_output_flush(&out));
    assert_int_equal(out.fd, -1);
    assert_content("p", "old");
    assert_int_equal(stat(path_of("p.part"), &info), 0);
    assert_int_equal(info.st_size, 6);
    assert_ok(hy3_output_publish(&out));
    assert_content("p", "abcdef");
    assert_false(hy3_path_exists(path_of("p.part")));
    hy3_output_discard(&out);
    assert_content("p", "abcdef");
}

static void what_is_discarded_leaves_nothing(void **state)
{
    struct hy3_output out = {0};
    char lengthy[HY3_PATH_MAX];

    (void)state;
    hy3_output_discard(&out);
    assert_ok(hy3_output_replace(path_of("q"), "old", 3));
    assert_ok(hy3_output_name(path_of("q"), "7", &out));
    assert_ok(hy3_output_create(&out));
    assert_string_equal(hy3_path_name(out.part), "q.7.part");
    hy3_output_discard(&out);
    assert_int_equal(out.fd, -1);
    assert_false(hy3_path_exists(path_of("q.7.part")));
    assert_content("q", "old");
    memset(lengthy, 'x', sizeof lengthy);
    lengthy[sizeof lengthy - 1] = '\0';
    assert_fails(HY3_EUSAGE, "too long", hy3_output_name(lengthy, NULL, &out));
    hy3_output_discard(&out);
    assert_ok(hy3_output_name(path_of("nothing"), NULL, &out));
    assert_fails(HY3_EIO, "nothing.part", hy3_output_open(&out));
    assert_fails(HY3_EIO, "nothing.part", hy3_output_publish(&out));
}

/* What a killed run left is no obstacle, and a link in its place is not followed. */
static void a_link_in_the_place_of_the_temporary_file_is_replaced(void **state)
{
    char target[HY3_PATH_MAX];

    (void)state;
    snprintf(target, sizeof target, "%.4000s", path_of("target"));
    assert_ok(hy3_output_replace(target, "kept", 4));
    assert_int_equal(symlink(target, path_of("r.part")), 0);
    assert_ok(hy3_output_replace(path_of("r"), "new", 3));
    assert_content("r", "new");
    assert_content("target", "kept");
}

/* The limit on the size of files stands for a full disk. */
static void a_claim_that_cannot_be_met_is_a_status(void **state)
{
    struct rlimit before, small = {.rlim_cur = 100};
    struct hy3_output out;

    (void)state;
    assert_ok(hy3_output_name(path_of("s"), NULL, &out));
    assert_ok(hy3_output_create(&out));
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    small.rlim_max = before.rlim_max;
    setrlimit(RLIMIT_FSIZE, &small);
    assert_fails(HY3_EIO, "no space for the 1.0 kB", hy3_output_claim(&out, 1000));
    setrlimit(RLIMIT_FSIZE, &before);
    hy3_output_discard(&out);
    assert_false(hy3_path_exists(path_of("s.part")));
}

static void what_is_replaced_is_read_back(void **state)
{
    char *text;
    size_t size;

    (void)state;
    assert_ok(hy3_output_replace(path_of("a"), "first", 5));
    assert_ok(hy3_output_replace(path_of("a"), "se\0ond", 6));
    assert_ok(hy3_file_read(path_of("a"), 100, &text, &size));
    assert_int_equal(size, 6);
    assert_memory_equal(text, "se\0ond", 7);
    hy3_free(text);
    assert_fails(HY3_EFORMAT, "more than", hy3_file_read(path_of("a"), 5, &text, &size));
}

/* A limit on the size of files stands for a full disk. */
static void a_failed_replacement_leaves_the_old_file(void **state)
{
    struct rlimit before, small = {.rlim_cur = 100};
    char large[4096] = "", *text;
    size_t size;

    (void)state;
    assert_ok(hy3_output_replace(path_of("b"), "old", 3));
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    small.rlim_max = before.rlim_max;
    setrlimit(RLIMIT_FSIZE, &small);
    assert_fails(HY3_EIO, "cannot write", hy3_output_replace(path_of("b"), large, sizeof large));
    setrlimit(RLIMIT_FSIZE, &before);
    assert_ok(hy3_file_read(path_of("b"), 100, &text, &size));
    assert_string_equal(text, "old");
    hy3_free(text);
    assert_false(hy3_path_exists(path_of("b.part")));
}

/* More than one piece of the copy, and an end that is no multiple of it. */
static void a_copy_is_the_same_bytes(void **state)
{
    enum { SIZE = (2 << 20) + 77 };

    char *data, *text, from[HY3_PATH_MAX];
    size_t size;

    (void)state;
    assert_ok(hy3_alloc(&data, SIZE, 1));
    for (int i = 0; i < SIZE; i++)
        data[i] = (char)(i * 31 >> 3);
    snprintf(from, sizeof from, "%.4000s", path_of("large"));
    assert_ok(hy3_output_replace(from, data, SIZE));
    assert_ok(hy3_output_copy(from, path_of("copy")));
    assert_ok(hy3_file_read(path_of("copy"), SIZE, &text, &size));
    assert_int_equal(size, SIZE);
    assert_memory_equal(text, data, SIZE);
    hy3_free(text);
    hy3_free(data);
    assert_fails(HY3_EIO, "nowhere", hy3_output_copy("nowhere", path_of("copy")));
}

/* A directory in the way of the temporary name, and of the final one. */
static void a_replacement_that_cannot_begin_or_end_is_a_status(void **state)
{
    char *text;
    size_t size;

    (void)state;
    assert_ok(hy3_output_replace(path_of("e"), "old", 3));
    assert_ok(hy3_directory_create(path_of("e.part")));
    assert_fails(HY3_EIO, "cannot create", hy3_output_replace(path_of("e"), "new", 3));
    assert_ok(hy3_file_read(path_of("e"), 100, &text, &size));
    assert_string_equal(text, "old");
    hy3_free(text);
    assert_ok(hy3_directory_create(path_of("f/g")));
    assert_fails(HY3_EIO, "cannot rename", hy3_output_replace(path_of("f"), "new", 3));
    assert_false(hy3_path_exists(path_of("f.part")));
    assert_fails(HY3_EIO, "nowhere", hy3_output_replace(path_of("nowhere/x"), "new", 3));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_appears_when_it_is_published),
        cmocka_unit_test(what_is_discarded_leaves_nothing),
        cmocka_unit_test(a_link_in_the_place_of_the_temporary_file_is_replaced),
        cmocka_unit_test(a_claim_that_cannot_be_met_is_a_status),
        cmocka_unit_test(what_is_replaced_is_read_back),
        cmocka_unit_test(a_failed_replacement_leaves_the_old_file),
        cmocka_unit_test(a_copy_is_the_same_bytes),
        cmocka_unit_test(a_replacement_that_cannot_begin_or_end_is_a_status),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
