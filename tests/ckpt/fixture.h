/* SPDX-License-Identifier: Apache-2.0 */
/* fixture.h - a store in plain host memory with the golden model in it. */
#pragma once

#include "base/file.h"
#include "base/memory.h"
#include "base/output.h"
#include "ckpt/hf/load.h"
#include "ckpt/hf/writer.h"
#include "comm/comm.h"
#include "support/test.h"

#include <ftw.h>
#include <unistd.h>

static inline hy3_status host_alloc(size_t bytes, void **out)
{
    return hy3_alloc(out, bytes, 1);
}

static inline hy3_status host_copy(struct hy3_stream *stream, void *to, const void *from,
                                   size_t bytes)
{
    (void)stream;
    memcpy(to, from, bytes);
    return HY3_OK;
}

static inline hy3_status host_synchronize(struct hy3_stream *stream)
{
    (void)stream;
    return HY3_OK;
}

/* Memory is all that files need of a backend. */
static const struct hy3_backend host_backend = {
    .name = "host",
    .device = {.alloc = host_alloc,
               .free = hy3_free,
               .copy = host_copy,
               .synchronize = host_synchronize},
};

struct model {
    struct hy3_layout layout;
    struct hy3_shape shape;
    struct hy3_params *params;
    struct hy3_store *store;
    struct hy3_hf_dir *dir;
};

/* Collective on `comm`. An empty store for the model of `directory`. */
static inline void model_open(struct model *m, MPI_Comm comm, const char *directory,
                              hy3_dtype dtype)
{
    const struct hy3_store_options options = {.dtype = dtype};
    char path[HY3_PATH_MAX];

    snprintf(path, sizeof path, "%s/config.json", directory);
    assert_ok(hy3_shape_open(path, &m->shape));
    assert_ok(hy3_layout_open(comm, 1, m->shape.experts, 0, 1, &m->layout));
    assert_ok(hy3_params_create(&m->shape, 0, m->shape.experts, &m->params));
    assert_ok(hy3_hf_dir_open(directory, &m->dir));
    assert_ok(hy3_store_open(&host_backend, &m->layout, m->params, &options, &m->store));
}

static inline void model_close(struct model *m)
{
    hy3_store_close(m->store);
    hy3_hf_dir_close(m->dir);
    hy3_params_free(m->params);
    hy3_layout_close(&m->layout);
}

/* Local. The path of `name` below the test's directory; static memory, valid until the fourth call
 * after. */
static inline const char *scratch(const char *name)
{
    static char paths[4][HY3_PATH_MAX];
    static int next;
    char *path = paths[next++ % 4];

    snprintf(path, HY3_PATH_MAX, "%s/%s", hy3_test_directory(), name);
    return path;
}

static inline int remove_one(const char *path, const struct stat *info, int type, struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    return remove(path);
}

static inline void remove_tree(const char *path)
{
    nftw(path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* Local. A copy of the golden inner directory. */
static inline void copy_golden(const char *to)
{
    static const char *const names[] = {"config.json",
                                        "model.safetensors.index.json",
                                        "model-00001-of-00005.safetensors",
                                        "model-00002-of-00005.safetensors",
                                        "model-00003-of-00005.safetensors",
                                        "model-00004-of-00005.safetensors",
                                        "model-00005-of-00005.safetensors"};
    char from[HY3_PATH_MAX], path[HY3_PATH_MAX];
    const char *golden = hy3_golden("a/inner");

    remove_tree(to);
    assert_ok(hy3_directory_create(to));
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(from, sizeof from, "%s/%s", golden, names[i]);
        snprintf(path, sizeof path, "%s/%s", to, names[i]);
        assert_ok(hy3_output_copy(from, path));
    }
}

/* Local. Whether two files have the same bytes. */
static inline bool same_file(const char *a, const char *b)
{
    char *x, *y;
    size_t n, m;
    bool same;

    assert_ok(hy3_file_read(a, (size_t)1 << 30, &x, &n));
    assert_ok(hy3_file_read(b, (size_t)1 << 30, &y, &m));
    same = n == m && memcmp(x, y, n) == 0;
    hy3_free(x);
    hy3_free(y);
    return same;
}
