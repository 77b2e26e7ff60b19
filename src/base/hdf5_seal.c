/* SPDX-License-Identifier: Apache-2.0 */
/* hdf5_seal.c - the checksum of what lies between runs of values. */
#include "base/hdf5_seal.h"

#include "base/file.h"
#include "base/memory.h"

#include <sys/stat.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

enum { PIECE = 1 << 16, MAGIC_BYTES = 8, MAX_RUNS = 1 << 23 };

enum { MAX_METADATA = 1 << 30 }; /* bytes: they are all read */

static const char magic[] = "hy3 seal";

/* The last bytes of a file. */
struct tail {
    uint64_t runs, file_bytes, metadata, seal; /* the last two: checksums */
    char magic[MAGIC_BYTES];
};

static hy3_status add_bytes(XXH3_state_t *hash, int fd, const char *path, int64_t from, int64_t to)
{
    char data[PIECE];

    for (int64_t at = from; at < to; at += PIECE) {
        size_t size = to - at < PIECE ? (size_t)(to - at) : PIECE;

        HY3_TRY(hy3_file_read_at(fd, data, size, at, path));
        XXH3_64bits_update(hash, data, size);
    }
    return HY3_OK;
}

/* The checksum of what lies between the runs, which ascend and are inside the file. */
static hy3_status hash_metadata(int fd, const char *path, const struct hy3_span *runs,
                                int64_t count, int64_t file_bytes, uint64_t *out)
{
    hy3_status status = HY3_OK;
    XXH3_state_t *hash = XXH3_createState();
    int64_t at = 0;

    if (!hash)
        HY3_FAIL(HY3_ENOMEM, "no memory for the checksum of '%s'", path);
    XXH3_64bits_reset(hash);
    for (int64_t i = 0; i < count; i++) {
        HY3_TRY_DONE(add_bytes(hash, fd, path, at, runs[i].first));
        at = hy3_span_end(runs[i]);
    }
    HY3_TRY_DONE(add_bytes(hash, fd, path, at, file_bytes));
    *out = XXH3_64bits_digest(hash);
done:
    XXH3_freeState(hash);
    return status;
}

static int by_place(const void *a, const void *b)
{
    const struct hy3_span *x = a, *y = b;

    return (x->first > y->first) - (x->first < y->first);
}

/* Sorts the runs and joins neighbours; how many are left. */
static int64_t join(struct hy3_span *runs, int64_t count)
{
    int64_t kept = 0;

    qsort(runs, (size_t)count, sizeof *runs, by_place);
    for (int64_t i = 0; i < count; i++)
        if (kept > 0 && hy3_span_end(runs[kept - 1]) == runs[i].first)
            runs[kept - 1].count += runs[i].count;
        else
            runs[kept++] = runs[i];
    return kept;
}

hy3_status hy3_hdf5_seal_create(int fd, const char *path, struct hy3_span *runs, int64_t count,
                                int64_t file_bytes, struct hy3_hdf5_seal *seal)
{
    struct tail tail = {.file_bytes = (uint64_t)file_bytes};
    size_t table;

    *seal = (struct hy3_hdf5_seal){0};
    count = join(runs, count);
    tail.runs = (uint64_t)count;
    table = (size_t)count * sizeof *runs;
    memcpy(tail.magic, magic, MAGIC_BYTES);
    HY3_TRY(hash_metadata(fd, path, runs, count, file_bytes, &tail.metadata));
    HY3_TRY(hy3_alloc(&seal->bytes, table + sizeof tail, 1));
    seal->size = table + sizeof tail;
    memcpy(seal->bytes, runs, table);
    memcpy(seal->bytes + table, &tail, sizeof tail);
    tail.seal = XXH3_64bits(seal->bytes, table + offsetof(struct tail, seal));
    memcpy(seal->bytes + table, &tail, sizeof tail);
    return HY3_OK;
}

/* Reads the table of runs, which must be the one that was written: each inside HDF5's part and
 * behind the one before. The caller owns *out. */
static hy3_status read_runs(int fd, const char *path, const struct tail *tail, int64_t size,
                            struct hy3_span **out)
{
    int64_t count = (int64_t)tail->runs, end = (int64_t)tail->file_bytes, at = 0, metadata;
    size_t table;
    char *bytes;

    if (tail->runs > MAX_RUNS ||
        end != size - count * (int64_t)sizeof **out - (int64_t)sizeof *tail || end < 0)
        HY3_FAIL(HY3_EFORMAT, "its seal does not fit its size");
    table = (size_t)count * sizeof **out;
    HY3_TRY(hy3_alloc(&bytes, table + sizeof *tail, 1));
    *out = (struct hy3_span *)(void *)bytes;
    HY3_TRY(hy3_file_read_at(fd, bytes, table + sizeof *tail, end, path));
    if (XXH3_64bits(bytes, table + offsetof(struct tail, seal)) != tail->seal)
        HY3_FAIL(HY3_EFORMAT, "its seal is damaged (wrong checksum)");
    for (int64_t i = 0; i < count; at = hy3_span_end((*out)[i++]))
        if ((*out)[i].first < at || (*out)[i].count < 0 || (*out)[i].count > end ||
            (*out)[i].first > end - (*out)[i].count)
            HY3_FAIL(HY3_EFORMAT, "its seal names values outside the file");
    metadata = end;
    for (int64_t i = 0; i < count; i++)
        metadata -= (*out)[i].count;
    if (metadata > MAX_METADATA)
        HY3_FAIL(HY3_EFORMAT, "it has %lld bytes of metadata, more than hy3 ever writes",
                 (long long)metadata);
    return HY3_OK;
}

hy3_status hy3_hdf5_seal_check(int fd, const char *path, bool *found)
{
    hy3_status status = HY3_OK;
    struct hy3_span *runs = NULL;
    struct tail tail;
    struct stat info;
    uint64_t is;

    *found = false;
    if (fstat(fd, &info) != 0 || info.st_size < (off_t)sizeof tail)
        return HY3_OK;
    HY3_TRY_DONE(hy3_file_read_at(fd, &tail, sizeof tail, info.st_size - (off_t)sizeof tail, path));
    if (memcmp(tail.magic, magic, MAGIC_BYTES) != 0)
        goto done;
    HY3_TRY_DONE(read_runs(fd, path, &tail, info.st_size, &runs));
    HY3_TRY_DONE(hash_metadata(fd, path, runs, (int64_t)tail.runs, (int64_t)tail.file_bytes, &is));
    if (is != tail.metadata)
        HY3_FAIL_DONE(HY3_EFORMAT, "its metadata is damaged (wrong checksum)");
    *found = true;
done:
    hy3_free(runs);
    return status;
}
