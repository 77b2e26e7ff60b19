/* SPDX-License-Identifier: Apache-2.0 */
/* path.c - each reason for which a path cannot be used has its own words. */
#include "base/path.h"

#include "base/file.h"
#include "base/output.h"
#include "support/test.h"

#include <sys/stat.h>
#include <unistd.h>

/* A path below the directory of the test, in place of one of four texts. */
static const char *at(const char *name)
{
    static char paths[4][HY3_PATH_MAX + 64];
    static int next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof paths[0], "%s/%s", hy3_test_directory(), name);
    return path;
}

static void assert_fault(const char *path, enum hy3_path_use use, const char *expected)
{
    char why[HY3_PATH_WHY] = "";

    assert_int_equal(hy3_path_fault(path, use, why, sizeof why), expected != NULL);
    assert_string_equal(why, expected ? expected : "");
}

static int make_places(void **state)
{
    (void)state;
    assert_ok(hy3_directory_create(at("dir/closed/below")));
    assert_ok(hy3_output_replace(at("file"), "x", 1));
    assert_ok(hy3_output_replace(at("secret"), "x", 1));
    assert_int_equal(mkfifo(at("pipe"), 0600), 0);
    assert_int_equal(symlink("nowhere", at("dangling")), 0);
    assert_int_equal(symlink("circle", at("circle")), 0);
    assert_int_equal(symlink("file", at("link")), 0);
    return 0;
}

static void paths_are_compared_by_what_they_lead_to(void **state)
{
    char existing[HY3_PATH_MAX];

    (void)state;
    assert_true(hy3_path_is_same(at("file"), at("link")));
    assert_false(hy3_path_is_same(at("file"), at("secret")));
    assert_false(hy3_path_is_same(at("none"), at("none")) || hy3_path_is_same(NULL, NULL));
    assert_true(hy3_path_exists_in(hy3_test_directory(), "file"));
    assert_false(hy3_path_exists_in(hy3_test_directory(), "none"));
    hy3_path_existing(at("dir/none/below"), existing);
    assert_string_equal(existing, at("dir"));
    hy3_path_existing(at("file"), existing);
    assert_string_equal(existing, at("file"));
    hy3_path_existing("none/below", existing);
    assert_string_equal(existing, ".");
    hy3_path_existing("/none-hy3/below", existing);
    assert_string_equal(existing, "/");
}

static void what_can_be_used_has_no_fault(void **state)
{
    (void)state;
    assert_fault(at("file"), HY3_PATH_FILE, NULL);
    assert_fault(at("link"), HY3_PATH_FILE, NULL);
    assert_fault(at("dir"), HY3_PATH_INPUT, NULL);
    assert_fault(at("dir/"), HY3_PATH_MODEL, NULL);
    assert_fault(at("dir"), HY3_PATH_OUTPUT, NULL);
    assert_fault(at("dir/new/newer"), HY3_PATH_OUTPUT, NULL);
}

static void a_missing_path_says_what_is_missing(void **state)
{
    char expected[HY3_PATH_MAX + 100];

    (void)state;
    assert_fault(at("nowhere"), HY3_PATH_FILE, "does not exist");
    assert_fault(at("nowhere/"), HY3_PATH_INPUT, "does not exist");
    snprintf(expected, sizeof expected, "does not exist: there is no directory '%s'",
             at("dir/none"));
    assert_fault(at("dir/none/x/y"), HY3_PATH_FILE, expected);
    assert_fault(at("dangling"), HY3_PATH_FILE,
                 "is a symbolic link to 'nowhere', which does not exist");
    assert_fault(at("dangling"), HY3_PATH_OUTPUT,
                 "is a symbolic link to 'nowhere', which does not exist");
}

static void the_wrong_kind_is_named(void **state)
{
    char expected[HY3_PATH_MAX + 100];

    (void)state;
    assert_fault(at("dir"), HY3_PATH_FILE, "is a directory, not a file");
    assert_fault(at("pipe"), HY3_PATH_FILE, "is a pipe, not a regular file");
    assert_fault("/dev/null", HY3_PATH_FILE, "is a device, not a regular file");
    assert_fault(at("file"), HY3_PATH_INPUT, "is a file, not a directory");
    assert_fault(at("file"), HY3_PATH_OUTPUT, "is a file, not a directory");
    snprintf(expected, sizeof expected, "cannot exist: '%s' is a file, not a directory",
             at("file"));
    assert_fault(at("file/x/y"), HY3_PATH_OUTPUT, expected);
    assert_fault(at("file/x"), HY3_PATH_FILE, expected);
}

static void circles_and_endless_names_are_named(void **state)
{
    static char endless[HY3_PATH_MAX + 10];
    char expected[100];

    (void)state;
    assert_fault(at("circle"), HY3_PATH_INPUT,
                 "cannot be reached: its symbolic links form a circle");
    memset(endless, 'x', sizeof endless - 1);
    snprintf(expected, sizeof expected, "is too long for a path: %zu bytes", strlen(endless));
    assert_fault(endless, HY3_PATH_FILE, expected);
}

/* As a user without privileges, since root may read everything. */
static void a_missing_permission_is_named(void **state)
{
    bool was_root = geteuid() == 0;
    char expected[HY3_PATH_MAX + 100], writing[HY3_PATH_MAX + 100];

    (void)state;
    assert_int_equal(chmod(at("dir"), 0555), 0);
    assert_int_equal(chmod(hy3_test_directory(), 0755), 0);
    assert_int_equal(chmod(at("secret"), 0000), 0);
    assert_int_equal(chmod(at("dir/closed"), 0000), 0);
    snprintf(expected, sizeof expected, "cannot be reached: no permission to enter '%s'",
             at("dir/closed"));
    if (was_root)
        assert_int_equal(seteuid(65534), 0);
    assert_fault(at("secret"), HY3_PATH_FILE, "cannot be read: no permission");
    assert_fault(at("dir/closed"), HY3_PATH_INPUT, "cannot be read: no permission");
    snprintf(writing, sizeof writing, "cannot be written: no permission to write in '%s'",
             at("dir"));
    assert_fault(at("dir"), HY3_PATH_OUTPUT, writing);
    snprintf(writing, sizeof writing, "cannot be created: no permission to write in '%s'",
             at("dir"));
    assert_fault(at("dir/new/newer"), HY3_PATH_OUTPUT, writing);
    assert_fault(at("dir/closed/below"), HY3_PATH_INPUT, expected);
    if (was_root)
        assert_int_equal(seteuid(0), 0);
    assert_int_equal(chmod(at("dir"), 0755), 0);
    assert_int_equal(chmod(at("dir/closed"), 0700), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(what_can_be_used_has_no_fault, make_places),
        cmocka_unit_test(paths_are_compared_by_what_they_lead_to),
        cmocka_unit_test(a_missing_path_says_what_is_missing),
        cmocka_unit_test(the_wrong_kind_is_named),
        cmocka_unit_test(circles_and_endless_names_are_named),
        cmocka_unit_test(a_missing_permission_is_named),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
