/* SPDX-License-Identifier: Apache-2.0 */
/* fixture.h - files of a test and the token files made of them. What opens, writes or changes a
 * file is collective on MPI_COMM_WORLD. */
#pragma once

#include "base/file.h"
#include "base/output.h"
#include "comm/comm.h"
#include "data/dataset.h"
#include "support/test.h"

#include <fcntl.h>
#include <unistd.h>

static const char *single[1]; /* the file list of most tests */

static inline int rank(void)
{
    return hy3_rank(MPI_COMM_WORLD);
}

/* The path of `name` in the test's directory; static memory, valid until the eighth call after. */
static inline const char *here(const char *name)
{
    static char paths[8][HY3_PATH_MAX];
    static int next;
    char *path = paths[next++ % 8];

    snprintf(path, HY3_PATH_MAX, "%s/%s", hy3_test_directory(), name);
    return path;
}

static inline struct hy3_dataset_options options_for(const char *file, const char *cache)
{
    static char kept[3][HY3_PATH_MAX]; /* here() and hy3_golden() do not keep theirs for long */

    snprintf(kept[0], sizeof kept[0], "%s", file);
    snprintf(kept[1], sizeof kept[1], "%s", here(cache));
    snprintf(kept[2], sizeof kept[2], "%s", hy3_golden("a/tokenizer"));
    single[0] = kept[0];
    return (struct hy3_dataset_options){.files = single,
                                        .file_count = 1,
                                        .tokenizer_directory = kept[2],
                                        .cache_directory = kept[1],
                                        .name = "train",
                                        .max_seq_length = 64};
}

/* Rank 0 writes, all wait. */
static inline void write_file(const char *path, const void *data, size_t size)
{
    if (rank() == 0)
        assert_ok(hy3_output_replace(path, data, size));
    hy3_barrier(MPI_COMM_WORLD, "testing");
}

static inline void write_text(const char *path, const char *text)
{
    write_file(path, text, strlen(text));
}

/* Rank 0 changes a bit that no rank is reading. */
static inline void flip_bit(const char *path, int64_t at, unsigned bit)
{
    char byte;
    int fd;

    hy3_barrier(MPI_COMM_WORLD, "testing");
    if (rank() == 0) {
        assert_true((fd = open(path, O_RDWR)) >= 0);
        assert_ok(hy3_file_read_at(fd, &byte, 1, at, path));
        byte = (char)(byte ^ (1 << bit));
        assert_ok(hy3_file_write_at(fd, &byte, 1, at, path));
        close(fd);
    }
    hy3_barrier(MPI_COMM_WORLD, "testing");
}

static inline void flip(const char *path, int64_t at)
{
    flip_bit(path, at, 0);
}

static inline bool same_bytes(const char *a, const char *b)
{
    char *one, *two;
    size_t one_size, two_size;
    bool same;

    assert_ok(hy3_file_read(a, 1 << 30, &one, &one_size));
    assert_ok(hy3_file_read(b, 1 << 30, &two, &two_size));
    same = one_size == two_size && memcmp(one, two, one_size) == 0;
    free(one);
    free(two);
    return same;
}

static inline hy3_status open_and_close(const struct hy3_dataset_options *o,
                                        struct hy3_dataset_summary *sum)
{
    struct hy3_dataset *dataset;
    hy3_status status = hy3_dataset_open(MPI_COMM_WORLD, o, &dataset, sum);

    hy3_dataset_close(dataset);
    return status;
}

static inline bool is_reused(const struct hy3_dataset_options *o)
{
    struct hy3_dataset_summary sum = {0};

    assert_ok(open_and_close(o, &sum));
    return sum.reused;
}
