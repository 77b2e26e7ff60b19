/* SPDX-License-Identifier: Apache-2.0 */
/* previous.c - a crash before any of the renames that set a run aside loses nothing. */
#include "train/previous.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "support/test.h"
#include "train/mark.h"

#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int renames_until_the_crash; /* 0: none comes */

/* In place of the C library's. */
int rename(const char *from, const char *to)
{
    if (renames_until_the_crash > 0 && --renames_until_the_crash == 0)
        _exit(99);
    return (int)syscall(SYS_rename, from, to);
}

static const char *const files[] = {
    "config.cfg",         "train_log.jsonl",     "loss.png",   "model.safetensors",
    "checkpoint-2/state", "checkpoint-10/state", "thesis.txt", "cache/train.h5"};

enum { FILES = sizeof files / sizeof *files };

static const char *below(const char *directory, const char *name)
{
    static char paths[4][HY3_PATH_MAX];
    static int next;
    char *path = paths[next = (next + 1) % 4];

    assert_ok(hy3_path_format(path, HY3_PATH_MAX, "%s/%s", directory, name));
    return path;
}

static void put(const char *directory, const char *name, const char *text)
{
    char path[HY3_PATH_MAX];

    snprintf(path, sizeof path, "%s", below(directory, name));
    *strrchr(path, '/') = '\0';
    assert_ok(hy3_directory_create(path));
    assert_ok(hy3_output_replace(below(directory, name), text, strlen(text)));
}

/* A run, and what was set aside before it. */
static const char *make_run(void)
{
    static char directory[HY3_PATH_MAX];
    struct hy3_mark mark = {.is_finished = true, .step = 10};

    snprintf(directory, sizeof directory, "%s/run", hy3_test_directory());
    assert_ok(hy3_directory_remove(directory));
    for (int i = 0; i < FILES; i++)
        put(directory, files[i], files[i]);
    assert_ok(hy3_mark_write(directory, &mark));
    put(directory, "previous/checkpoint-99/state", "older");
    assert_ok(hy3_mark_write(below(directory, "previous"), &mark));
    return directory;
}

static bool is_there(const char *directory, const char *file)
{
    char *text = NULL;
    size_t size;
    bool there = hy3_path_exists(below(directory, file)) &&
                 hy3_file_read(below(directory, file), 1000, &text, &size) == HY3_OK &&
                 strcmp(text, file) == 0;

    hy3_free(text);
    return there;
}

/* In a child that dies before its n-th rename; whether it did. */
static bool crashes(const char *directory, const struct hy3_previous_options *options, int n)
{
    char names[256];
    int result;
    pid_t child = fork();

    if (child == 0) {
        renames_until_the_crash = n;
        _exit(hy3_previous_set_aside(directory, options, names, sizeof names) == HY3_OK ? 0 : 1);
    }
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFEXITED(result) && WEXITSTATUS(result) != 1);
    return WEXITSTATUS(result) == 99;
}

static void a_crash_between_any_two_renames_loses_nothing(void **state)
{
    static const struct hy3_previous_options options[] = {
        {.after = -1, .takes_run = true}, {.after = 2, .takes_model = true}, {.after = 2}};
    int crashed = 0;

    (void)state;
    for (size_t o = 0; o < 3; o++) {
        bool more = true;

        for (int n = 1; more; n++) {
            const char *directory = make_run();
            struct hy3_mark mark;
            char names[256];
            bool found, restored;

            more = crashes(directory, &options[o], n);
            assert_ok(hy3_previous_restore(directory, &restored));
            for (int i = 0; more && i < FILES; i++)
                if (!is_there(directory, files[i]))
                    fail_msg("options %zu, rename %d: %s is not back", o, n, files[i]);
            assert_ok(hy3_mark_read(directory, &mark, &found));
            assert_true(found && mark.is_finished && mark.step == 10);
            assert_ok(hy3_previous_set_aside(directory, &options[o], names, sizeof names));
            for (int i = 0; i < FILES; i++)
                assert_true(is_there(directory, files[i]) ||
                            is_there(below(directory, "previous"), files[i]));
            assert_true(is_there(below(directory, "previous"), "checkpoint-10/state"));
            assert_true(is_there(directory, "thesis.txt"));
            assert_false(hy3_path_exists(below(directory, "previous/checkpoint-99")));
            crashed += more;
        }
    }
    assert_true(crashed > 20);
}

/* The run is set aside, and another began in its place that has no checkpoint yet. */
static const char *make_set_aside(void)
{
    static const struct hy3_previous_options all = {.after = -1, .takes_run = true};
    struct hy3_mark mark = {.step = 0};
    const char *directory = make_run();
    char names[256];

    assert_ok(hy3_previous_set_aside(directory, &all, names, sizeof names));
    put(directory, "config.cfg", "of another");
    put(directory, "train_log.jsonl", "of another");
    assert_ok(hy3_mark_write(directory, &mark));
    return directory;
}

static void a_crash_while_a_run_is_brought_back_loses_nothing(void **state)
{
    bool more = true;
    int crashed = 0;

    (void)state;
    for (int n = 1; more; n++, crashed += more) {
        const char *directory = make_set_aside();
        struct hy3_mark mark;
        bool found, restored;
        int result;
        pid_t child = fork();

        if (child == 0) {
            renames_until_the_crash = n;
            _exit(hy3_previous_bring_back(directory) == HY3_OK ? 0 : 1);
        }
        assert_int_equal(waitpid(child, &result, 0), child);
        assert_true(WIFEXITED(result) && WEXITSTATUS(result) != 1);
        more = WEXITSTATUS(result) == 99;
        assert_ok(hy3_previous_restore(directory, &restored));
        assert_true(restored == (more && n > 1));
        if (more && n == 1) { /* nothing had happened */
            assert_true(is_there(below(directory, "previous"), "checkpoint-10/state"));
            assert_ok(hy3_previous_bring_back(directory));
        }
        for (int i = 0; i < FILES; i++)
            if (!is_there(directory, files[i]))
                fail_msg("rename %d: %s is not back", n, files[i]);
        assert_ok(hy3_mark_read(directory, &mark, &found));
        assert_true(found && mark.is_finished && mark.step == 10);
        assert_false(hy3_path_exists(below(directory, "previous")));
        assert_false(hy3_path_exists(below(directory, "previous.part")));
    }
    assert_true(crashed > 6);
}

static void a_checkpoint_of_the_same_step_stands_until_its_successor_does(void **state)
{
    (void)state;
    for (int n = 1; n <= 3; n++) {
        const char *directory = make_run();
        char *text;
        size_t size;
        bool restored;
        int result;
        pid_t child;

        put(directory, "checkpoint-2.part/state", "new");
        if ((child = fork()) == 0) {
            renames_until_the_crash = n;
            _exit(hy3_previous_replace(directory, "checkpoint-2.part", "checkpoint-2") == HY3_OK
                      ? 0
                      : 1);
        }
        assert_int_equal(waitpid(child, &result, 0), child);
        assert_ok(hy3_previous_restore(directory, &restored));
        assert_ok(hy3_file_read(below(directory, "checkpoint-2/state"), 100, &text, &size));
        assert_string_equal(text, n < 3 ? "checkpoint-2/state" : "new");
        hy3_free(text);
        assert_false(hy3_path_exists(below(directory, ".hy3_replaced_checkpoint-2")));
    }
}

static void what_hy3_did_not_make_is_not_touched(void **state)
{
    static const struct hy3_previous_options all = {.after = -1, .takes_run = true};
    const char *directory = make_run();
    char names[256];
    bool restored;

    (void)state;
    assert_int_equal(unlink(below(directory, "previous/" HY3_MARK_NAME)), 0);
    assert_int_equal(hy3_previous_set_aside(directory, &all, names, sizeof names), HY3_EUSAGE);
    for (int i = 0; i < FILES; i++)
        assert_true(is_there(directory, files[i]));
    assert_ok(hy3_previous_remove(directory));
    assert_true(hy3_path_exists(below(directory, "previous/checkpoint-99")));
    put(directory, "checkpoint-2.old/state", "kept by a user");
    put(directory, "previous.old/state", "kept by a user");
    assert_ok(hy3_previous_restore(directory, &restored));
    assert_ok(hy3_previous_remove(directory));
    assert_true(hy3_path_exists(below(directory, "checkpoint-2.old/state")));
    assert_true(hy3_path_exists(below(directory, "previous.old/state")));
    put(directory, "previous.part/state", "of somebody else");
    assert_int_equal(hy3_previous_restore(directory, &restored), HY3_EUSAGE);
    assert_true(hy3_path_exists(below(directory, "previous.part/state")));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_crash_between_any_two_renames_loses_nothing),
        cmocka_unit_test(a_crash_while_a_run_is_brought_back_loses_nothing),
        cmocka_unit_test(a_checkpoint_of_the_same_step_stands_until_its_successor_does),
        cmocka_unit_test(what_hy3_did_not_make_is_not_touched),
    };

    return hy3_test_run(&argc, &argv, tests, sizeof tests / sizeof *tests);
}
