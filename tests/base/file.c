/* file.c - whole files, durable replacement, directories. */
#include "base/file.h"

#include "base/memory.h"
#include "support/test.h"

#include <signal.h>
#include <sys/resource.h>

static const char *path_of(const char *name)
{
    static char path[HY3_PATH_MAX + 64];

    snprintf(path, sizeof path, "%s/%s", hy3_test_directory(), name);
    return path;
}

static void what_is_replaced_is_read_back(void **state)
{
    char *text;
    size_t size;

    (void)state;
    assert_ok(hy3_file_replace(path_of("a"), "first", 5));
    assert_ok(hy3_file_replace(path_of("a"), "se\0ond", 6));
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
    assert_ok(hy3_file_replace(path_of("b"), "old", 3));
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    small.rlim_max = before.rlim_max;
    setrlimit(RLIMIT_FSIZE, &small);
    assert_fails(HY3_EIO, "cannot write", hy3_file_replace(path_of("b"), large, sizeof large));
    setrlimit(RLIMIT_FSIZE, &before);
    assert_ok(hy3_file_read(path_of("b"), 100, &text, &size));
    assert_string_equal(text, "old");
    hy3_free(text);
    assert_false(hy3_path_exists(path_of("b.part")));
}

static void directories_are_made_with_their_parents(void **state)
{
    (void)state;
    assert_ok(hy3_directory_create(path_of("x/y/z")));
    assert_true(hy3_path_is_directory(path_of("x/y/z")));
    assert_ok(hy3_directory_create(path_of("x/y/z")));
    assert_ok(hy3_file_replace(path_of("x/file"), "", 0));
    assert_fails(HY3_EIO, "x/file", hy3_directory_create(path_of("x/file/below")));
}

static void what_cannot_be_read_is_named(void **state)
{
    char *text;
    size_t size;

    (void)state;
    assert_fails(HY3_EIO, "nowhere", hy3_file_read(path_of("nowhere"), 10, &text, &size));
    assert_fails(HY3_EIO, "not a regular file", hy3_file_read("/", 10, &text, &size));
}

/* The n-th allocation fails: a clean status, nothing leaks (the sanitizers look). */
static void a_failing_allocation_is_a_status(void **state)
{
    char *text = NULL;
    size_t size;

    (void)state;
    assert_ok(hy3_file_replace(path_of("c"), "abc", 3));
    hy3_alloc_fail_at(1);
    assert_fails(HY3_ENOMEM, "memory", hy3_file_read(path_of("c"), 10, &text, &size));
    hy3_alloc_fail_at(0);
    assert_fails(HY3_ENOMEM, "cannot allocate", hy3_alloc(&text, SIZE_MAX / 2, 3));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_replaced_is_read_back),
        cmocka_unit_test(a_failed_replacement_leaves_the_old_file),
        cmocka_unit_test(directories_are_made_with_their_parents),
        cmocka_unit_test(what_cannot_be_read_is_named),
        cmocka_unit_test(a_failing_allocation_is_a_status),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
