/* SPDX-License-Identifier: Apache-2.0 */
/* test.c - the harness of the unit tests. */
#include "support/test.h"

#include "base/file.h"
#include "comm/comm.h"
#include "comm/launch.h"

#include <fcntl.h>
#include <ftw.h>
#include <unistd.h>

static char directory[HY3_PATH_MAX];

static int remove_entry(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    return remove(path);
}

int hy3_test_run(int *argc, char ***argv, const struct CMUnitTest *tests, size_t count)
{
    int failed, quiet;

    if (hy3_start(argc, argv, "test") != HY3_OK) {
        fprintf(stderr, "Bail out! %s\n", hy3_error_text());
        return 1;
    }
    if (!getenv("HY3_LOG"))
        setenv("HY3_LOG", "quiet", 1);
    cmocka_set_message_output(CM_OUTPUT_TAP);
    if (hy3_rank(MPI_COMM_WORLD) > 0 && (quiet = open("/dev/null", O_WRONLY)) >= 0) {
        dup2(quiet, STDOUT_FILENO);
        close(quiet);
    }
    failed = _cmocka_run_group_tests("tests", tests, count, NULL, NULL);
    hy3_barrier(MPI_COMM_WORLD, "ending a test");
    if (directory[0] != '\0' && hy3_rank(MPI_COMM_WORLD) == 0)
        nftw(directory, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
    MPI_Finalize();
    return failed != 0;
}

void hy3_assert_all(bool fact, const char *text, const char *file, int line)
{
    int64_t all = fact;

    hy3_allreduce_int(MPI_COMM_WORLD, &all, 1, MPI_MIN, "testing");
    if (!fact)
        fprintf(stderr, "# rank %d: %s:%d: %s\n", hy3_rank(MPI_COMM_WORLD), file, line, text);
    if (!all)
        _fail(file, line);
}

void hy3_assert_ok(hy3_status status, const char *text, const char *file, int line)
{
    if (status == HY3_OK)
        return;
    fprintf(stderr, "# %s: %s\n", text, hy3_error_text());
    _fail(file, line);
}

void hy3_assert_fails(hy3_status code, const char *words, hy3_status status, const char *file,
                      int line)
{
    if (status == code && strstr(hy3_error_text(), words))
        return;
    fprintf(stderr, "# wanted status %d and '%s', got %d and '%s'\n", (int)code, words, (int)status,
            status == HY3_OK ? "" : hy3_error_text());
    _fail(file, line);
}

const char *hy3_golden(const char *name)
{
    static char paths[4][HY3_PATH_MAX];
    static int next;
    char *path = paths[next++ % 4];
    const char *root = getenv("HY3_SOURCE");

    snprintf(path, HY3_PATH_MAX, "%s/tests/golden/%s", root ? root : HY3_SRCDIR, name);
    return path;
}

json_t *hy3_golden_json(const char *name)
{
    char *text;
    size_t size;
    json_t *value = NULL;

    assert_ok(hy3_file_read(hy3_golden(name), (size_t)1 << 30, &text, &size));
    assert_ok(hy3_json_parse(text, size, name, &value));
    free(text);
    return value;
}

const char *hy3_test_directory(void)
{
    const char *base = getenv("TMPDIR");

    if (directory[0] == '\0') {
        snprintf(directory, sizeof directory, "%s/hy3-test-XXXXXX", base ? base : "/tmp");
        if (hy3_rank(MPI_COMM_WORLD) == 0 && !mkdtemp(directory))
            HY3_BUG("cannot create %s", directory);
        hy3_broadcast(MPI_COMM_WORLD, 0, directory, sizeof directory, "making a directory");
    }
    return directory;
}

bool hy3_test_gpu_module(void)
{
    const char *build = getenv("HY3_BUILD");
    char path[HY3_PATH_MAX];

    snprintf(path, sizeof path, "%s/.libs/hy3_cuda_emu.so", build ? build : ".");
    if (!getenv("HY3_CUDA_MODULE") && hy3_path_exists(path))
        setenv("HY3_CUDA_MODULE", path, 1);
    return getenv("HY3_CUDA_MODULE") != NULL;
}
