/* SPDX-License-Identifier: Apache-2.0 */
/* file.c - whole files, exact reads and writes, directories. */
#include "base/file.h"

#include "base/memory.h"
#include "base/output.h"
#include "base/planted.h"
#include "support/test.h"

#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool takes_nothing;

/* Before the C library's, in this program: a file system that takes no byte and says no error. */
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return takes_nothing ? 0 : syscall(SYS_pwrite64, fd, data, size, offset);
}

static const char *path_of(const char *name)
{
    static char path[HY3_PATH_MAX + 64];

    snprintf(path, sizeof path, "%s/%s", hy3_test_directory(), name);
    return path;
}

static void directories_are_made_with_their_parents(void **state)
{
    (void)state;
    assert_ok(hy3_directory_create(path_of("x/y/z")));
    assert_true(hy3_path_is_directory(path_of("x/y/z")));
    assert_ok(hy3_directory_create(path_of("x/y/z")));
    assert_ok(hy3_output_replace(path_of("x/file"), "", 0));
    assert_fails(HY3_EIO, "x/file", hy3_directory_create(path_of("x/file/below")));
}

static void what_cannot_be_read_is_named(void **state)
{
    char *text;
    size_t size;

    (void)state;
    assert_fails(HY3_EIO, "nowhere", hy3_file_read(path_of("nowhere"), 10, &text, &size));
    assert_fails(HY3_EIO, "'/' is a directory, not a file", hy3_file_read("/", 10, &text, &size));
}

static void exact_reads_and_writes_are_exact(void **state)
{
    char data[8] = "";
    int64_t bytes;
    int fd;

    (void)state;
    assert_ok(hy3_output_replace(path_of("d"), "0123456789", 10));
    assert_ok(hy3_file_open(path_of("d"), &fd));
    assert_ok(hy3_file_read_at(fd, data, 4, 6, "d"));
    assert_string_equal(data, "6789");
    assert_fails(HY3_EFORMAT, "'d' ends at byte 10, 2 bytes too early",
                 hy3_file_read_at(fd, data, 4, 8, "d"));
    assert_fails(HY3_EFORMAT, "'d' ends at byte 10, 14 bytes too early", /* and no later one */
                 hy3_file_read_at(fd, data, 4, 20, "d"));
    assert_fails(HY3_EIO, "cannot write 'd'", hy3_file_write_at(fd, data, 4, 0, "d"));
    close(fd);
    assert_ok(hy3_file_size(path_of("d"), &bytes));
    assert_int_equal(bytes, 10);
    assert_fails(HY3_EIO, "nowhere", hy3_file_size(path_of("nowhere"), &bytes));
}

static void a_write_that_makes_no_progress_fails(void **state)
{
    int fd;

    (void)state;
    assert_ok(hy3_file_create(path_of("full"), &fd));
    assert_ok(hy3_file_write_at(fd, "0123", 4, 0, "full"));
    takes_nothing = true;
    alarm(10); /* a loop would end here */
    assert_fails(HY3_EIO, "cannot write 'full': the file system takes no byte at 3",
                 hy3_file_write_at(fd, "4567", 4, 3, "full"));
    alarm(0);
    takes_nothing = false;
    close(fd);
}

/* A name without a slash, one in the root, a path that is too long, a pipe that nobody writes
 * to. */
static void paths_of_every_form_are_handled(void **state)
{
    char lengthy[HY3_PATH_MAX + 10], out[16], *text;
    size_t size;

    (void)state;
    assert_string_equal(hy3_path_name("a/b"), "b");
    assert_string_equal(hy3_path_name("b"), "b");
    assert_string_equal(hy3_path_name("a/"), "");
    assert_ok(hy3_directory_sync("name"));
    assert_ok(hy3_directory_sync("/name"));
    memset(lengthy, 'x', sizeof lengthy);
    lengthy[sizeof lengthy - 1] = '\0';
    assert_fails(HY3_EUSAGE, "too long", hy3_directory_create(lengthy));
    assert_fails(HY3_EUSAGE, "too long", hy3_output_replace(lengthy, "", 0));
    assert_ok(hy3_path_format(out, sizeof out, "%s/%d", "a", 15));
    assert_string_equal(out, "a/15");
    assert_fails(HY3_EUSAGE, "too long", hy3_path_format(out, 4, "%s/%d", "a", 15));
    assert_int_equal(mkfifo(path_of("pipe"), 0600), 0);
    assert_fails(HY3_EIO, "not a regular file", hy3_file_read(path_of("pipe"), 10, &text, &size));
}

/* The n-th allocation fails: a clean status, nothing leaks (the sanitizers look). */
static void a_failing_allocation_is_a_status(void **state)
{
    char *text = NULL;
    size_t size;

    (void)state;
    assert_ok(hy3_output_replace(path_of("c"), "abc", 3));
    hy3_alloc_fail_at(1);
    assert_fails(HY3_ENOMEM, "memory", hy3_file_read(path_of("c"), 10, &text, &size));
    hy3_alloc_fail_at(0);
    assert_fails(HY3_ENOMEM, "cannot allocate", hy3_alloc(&text, SIZE_MAX / 2, 3));
}

static mode_t mode_of(const char *name)
{
    struct stat info;

    assert_int_equal(stat(path_of(name), &info), 0);
    return info.st_mode & 07777;
}

static void what_is_private_is_its_owners_alone(void **state)
{
    mode_t before = umask(0);
    int fd;

    (void)state;
    assert_ok(hy3_directory_create_private(path_of("p/q")));
    assert_ok(hy3_directory_create_new(path_of("p/q/new"), true));
    assert_ok(hy3_directory_create_new(path_of("p/q/open"), false));
    assert_ok(hy3_file_create_private(path_of("p/file"), &fd));
    close(fd);
    assert_ok(hy3_file_create(path_of("p/open"), &fd));
    close(fd);
    umask(before);
    assert_int_equal(mode_of("p"), 0777);
    assert_int_equal(mode_of("p/q"), 0700);
    assert_int_equal(mode_of("p/q/new"), 0700);
    assert_int_equal(mode_of("p/q/open"), 0777);
    assert_int_equal(mode_of("p/file"), 0600);
    assert_int_equal(mode_of("p/open"), 0666);
}

/* Creating, opening again and removing: none goes through a link. */
static void links_are_not_followed(void **state)
{
    char kept[HY3_PATH_MAX];
    int fd;

    (void)state;
    snprintf(kept, sizeof kept, "%.4000s", path_of("kept"));
    assert_ok(hy3_directory_create(kept));
    assert_ok(hy3_output_replace(path_of("kept/file"), "kept", 4));
    assert_ok(hy3_directory_create(path_of("l/below")));
    assert_int_equal(symlink(kept, path_of("l/link")), 0);
    assert_int_equal(symlink(kept, path_of("l/below/link")), 0);
    assert_fails(HY3_EIO, "cannot create", hy3_directory_create_new(path_of("l/link"), true));
    assert_int_equal(symlink("../kept/file", path_of("l/file")), 0);
    assert_fails(HY3_EIO, "cannot open", hy3_file_reopen(path_of("l/file"), &fd));
    assert_int_equal(mkfifo(path_of("l/pipe"), 0600), 0);
    assert_fails(HY3_EIO, "not a regular file", hy3_file_reopen(path_of("l/pipe"), &fd));
    assert_ok(hy3_directory_remove(path_of("l")));
    assert_false(hy3_path_exists(path_of("l")));
    assert_true(hy3_path_exists(path_of("kept/file")));
    assert_int_equal(symlink(kept, path_of("l")), 0);
    assert_ok(hy3_directory_remove(path_of("l")));
    assert_ok(hy3_directory_remove(path_of("l")));
    assert_true(hy3_path_exists(path_of("kept/file")));
}

static void directories_too_deep_for_hy3_are_not_removed(void **state)
{
    char deep[128] = "deep";

    (void)state;
    for (size_t used = 4; used < 84; used += 2)
        snprintf(deep + used, sizeof deep - used, "/d");
    assert_ok(hy3_directory_create(path_of(deep)));
    assert_fails(HY3_EIO, "too deep", hy3_directory_remove(path_of("deep")));
    assert_true(hy3_path_exists(path_of(deep)));
}

/* In a directory that everybody may write, what others have put there is not touched. */
static void what_others_planted_is_refused(void **state)
{
    int fd;

    (void)state;
    if (geteuid() != 0)
        skip(); /* only root can give a file to somebody */
    assert_ok(hy3_directory_create(path_of("shared/theirs")));
    assert_ok(hy3_output_replace(path_of("shared/file"), "", 0));
    assert_int_equal(symlink("x/y", path_of("shared/link")), 0);
    assert_int_equal(chown(path_of("shared/theirs"), 65534, 65534), 0);
    assert_int_equal(chown(path_of("shared/file"), 65534, 65534), 0);
    assert_int_equal(lchown(path_of("shared/link"), 65534, 65534), 0);
    assert_false(hy3_is_planted(path_of("shared/file")));
    assert_int_equal(chmod(path_of("shared"), 01777), 0);
    assert_true(hy3_is_planted(path_of("shared/file")));
    assert_true(hy3_is_planted(path_of("shared/theirs//")));
    assert_false(hy3_is_planted(path_of("shared/absent")));
    assert_fails(HY3_EUSAGE, "user 65534", hy3_file_create(path_of("shared/file"), &fd));
    assert_fails(HY3_EUSAGE, "user 65534", hy3_file_remove(path_of("shared/file")));
    assert_fails(HY3_EUSAGE, "user 65534", hy3_directory_remove(path_of("shared/theirs")));
    assert_fails(HY3_EUSAGE, "user 65534", hy3_directory_create(path_of("shared/link/z")));
    assert_fails(HY3_EUSAGE, "user 65534", hy3_planted_check(path_of("shared"), NULL));
    assert_true(hy3_path_is_directory(path_of("shared/theirs")));
    assert_int_equal(chown(path_of("shared"), 65534, 0), 0); /* its own directory */
    assert_ok(hy3_planted_check(path_of("shared"), NULL));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(directories_are_made_with_their_parents),
        cmocka_unit_test(what_cannot_be_read_is_named),
        cmocka_unit_test(exact_reads_and_writes_are_exact),
        cmocka_unit_test(a_write_that_makes_no_progress_fails),
        cmocka_unit_test(paths_of_every_form_are_handled),
        cmocka_unit_test(a_failing_allocation_is_a_status),
        cmocka_unit_test(what_is_private_is_its_owners_alone),
        cmocka_unit_test(links_are_not_followed),
        cmocka_unit_test(directories_too_deep_for_hy3_are_not_removed),
        cmocka_unit_test(what_others_planted_is_refused),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
