/* SPDX-License-Identifier: Apache-2.0 */
/* fuzz.h - what fuzzers share: bytes as choices, and a file that holds them. */
#pragma once

#include "base/file.h"
#include "base/hdf5.h"
#include "base/hdf5_seal.h"
#include "base/memory.h"
#include "base/output.h"

#include <mpi.h>

#include <fcntl.h>
#include <ftw.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz_bytes {
    const uint8_t *at, *end;
};

/* The next byte; 0 after the last. */
static inline unsigned fuzz_byte(struct fuzz_bytes *bytes)
{
    return bytes->at < bytes->end ? *bytes->at++ : 0;
}

/* A number as files of others may have it where hy3 writes `right`. */
static inline int64_t fuzz_number(struct fuzz_bytes *bytes, int64_t right)
{
    static const int64_t odd[] = {
        0,         -1,        1,          2,  1 << 20, ((int64_t)1 << 50) + 1,
        INT64_MAX, INT64_MIN, UINT32_MAX, -5, 1000,    (int64_t)1 << 33};
    unsigned choice = fuzz_byte(bytes);

    if (choice < 128)
        return right;
    if (choice < 192)
        return right + (int64_t)choice - 160;
    return odd[choice % (sizeof odd / sizeof *odd)];
}

static char fuzz_place[] = "/dev/shm/fuzz-XXXXXX";

static inline int fuzz_remove(const char *path, const struct stat *info, int type,
                              struct FTW *where)
{
    (void)info;
    (void)type;
    (void)where;
    return remove(path);
}

static inline void fuzz_clean(void)
{
    nftw(fuzz_place, fuzz_remove, 16, FTW_DEPTH | FTW_PHYS);
}

/* A directory of this process in memory, made once, which goes at its end. HDF5 opens no names
 * below /proc. */
static inline const char *fuzz_directory(void)
{
    static bool is_made;

    if (!is_made && (!mkdtemp(fuzz_place) || atexit(fuzz_clean) != 0))
        abort();
    is_made = true;
    return fuzz_place;
}

/* The name of a file in it; valid until the next call with the same buffer. */
static inline char *fuzz_path(char path[HY3_PATH_MAX], const char *name)
{
    if (hy3_path_format(path, HY3_PATH_MAX, "%s/%s", fuzz_directory(), name) != HY3_OK)
        abort();
    return path;
}

static inline void fuzz_write(const char *path, const void *data, size_t size)
{
    FILE *file = fopen(path, "w");

    if (!file || fwrite(data, 1, size, file) != size || fclose(file) != 0)
        abort();
}

/* Seals a file as a forger would: all of it is metadata. */
static inline void fuzz_seal(const char *path)
{
    struct hy3_span none = {0};
    struct hy3_hdf5_seal seal;
    int64_t bytes;
    int fd = open(path, O_RDWR | O_CLOEXEC);

    if (fd < 0 || hy3_file_size(path, &bytes) != HY3_OK ||
        hy3_hdf5_seal_create(fd, path, &none, 0, bytes, &seal) != HY3_OK ||
        hy3_file_write_at(fd, seal.bytes, seal.size, bytes, path) != HY3_OK)
        abort();
    hy3_free(seal.bytes);
    close(fd);
}

/* For readers that are collective: on one rank. */
static inline void fuzz_begin_mpi(void)
{
    int has_begun;

    MPI_Initialized(&has_begun);
    if (has_begun)
        return;
    hy3_hdf5_begin();
    setenv("HY3_LOG", "quiet", 0);
    if (MPI_Init(NULL, NULL) != MPI_SUCCESS)
        abort();
}
