/* SPDX-License-Identifier: Apache-2.0 */
/* sources.c - sizes and times of the files, and the cache directory. */
#include "data/sources.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/plural.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "data/kind.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* First, last, and evenly spaced blocks; an edited file often has its old size, and a restored one
 * its old time. */
static hy3_status sample(int fd, struct hy3_source *source)
{
    enum { BLOCK = 4096, BLOCKS = 64, SMALL = BLOCK * BLOCKS };

    char block[BLOCK];
    enum hy3_data_layout layout = HY3_LAYOUT_LINES;
    uint64_t sum = 0;

    for (int64_t i = 0; i < BLOCKS; i++) {
        bool is_small = source->size <= SMALL;
        int64_t at = is_small ? i * BLOCK : (source->size - BLOCK) / (BLOCKS - 1) * i;
        int64_t size = source->size - at < BLOCK ? source->size - at : BLOCK;

        if (i == BLOCKS - 1 && !is_small)
            at = source->size - BLOCK;
        if (size <= 0)
            break;
        HY3_TRY(hy3_file_read_at(fd, block, (size_t)size, at, source->path));
        if (i == 0)
            HY3_TRY(hy3_kind_check(source->path, block, (size_t)size, &layout));
        sum = XXH3_64bits_withSeed(block, (size_t)size, sum);
    }
    source->layout = layout;
    source->sampled = (int64_t)sum;
    return HY3_OK;
}

static int64_t mtime_of(const struct stat *info)
{
    return (int64_t)info->st_mtim.tv_sec * 1000000000 + info->st_mtim.tv_nsec;
}

static hy3_status stat_one(struct hy3_source *source)
{
    hy3_status status = HY3_OK;
    struct stat info;
    int fd = -1;

    HY3_TRY_DONE(hy3_file_open(source->path, &fd));
    if (fstat(fd, &info) != 0)
        HY3_FAIL_DONE(HY3_EIO, "cannot read '%s': %s", source->path, strerror(errno));
    source->size = info.st_size;
    source->mtime_ns = mtime_of(&info);
    source->ctime_ns = (int64_t)info.st_ctim.tv_sec * 1000000000 + info.st_ctim.tv_nsec;
    HY3_TRY_DONE(sample(fd, source));
done:
    if (fd >= 0)
        close(fd);
    return status;
}

enum { FACTS = 5 };

static void put_facts(const struct hy3_source *source, int64_t facts[FACTS])
{
    facts[0] = source->size;
    facts[1] = source->mtime_ns;
    facts[2] = source->layout;
    facts[3] = source->sampled;
    facts[4] = source->ctime_ns;
}

static void take_facts(struct hy3_source *source, const int64_t facts[FACTS])
{
    source->size = facts[0];
    source->mtime_ns = facts[1];
    source->layout = facts[2];
    source->sampled = facts[3];
    source->ctime_ns = facts[4];
}

hy3_status hy3_sources_stat(MPI_Comm comm, const char *const *files, int count,
                            struct hy3_source **out)
{
    hy3_status status = HY3_OK;
    struct hy3_source *sources = NULL;
    int64_t *facts = NULL; /* FACTS of each file */
    size_t size = FACTS * (size_t)count * sizeof *facts;

    *out = NULL;
    status = hy3_alloc(&sources, (size_t)count, sizeof *sources);
    if (status == HY3_OK)
        status = hy3_alloc(&facts, FACTS * (size_t)count, sizeof *facts);
    for (int f = 0; f < count && status == HY3_OK; f++) {
        status = hy3_strdup(files[f], &sources[f].path);
        if (status == HY3_OK && hy3_rank(comm) == 0)
            status = stat_one(&sources[f]);
        put_facts(&sources[f], facts + (ptrdiff_t)FACTS * f);
    }
    HY3_AGREE_DONE(comm, status, "examining the data files");
    hy3_broadcast(comm, 0, facts, size, "examining the data files");
    for (int f = 0; f < count; f++) {
        take_facts(&sources[f], facts + (ptrdiff_t)FACTS * f);
    }
    *out = HY3_TAKE(sources);
done:
    hy3_sources_free(sources, count);
    hy3_free(facts);
    return status;
}

hy3_status hy3_sources_look_again(const struct hy3_source *sources, int count, int *changed)
{
    struct stat info;

    *changed = -1;
    for (int f = 0; f < count; f++) {
        const struct hy3_source *source = &sources[f];
        int64_t more;

        if (stat(source->path, &info) != 0)
            continue;
        more = info.st_size - source->size;
        if (more < 0)
            HY3_FAIL(
                HY3_EFORMAT,
                "'%s' was changed while it was read: it had %lld bytes and has %lld now; start "
                "again when nothing writes to it",
                source->path, (long long)source->size, (long long)info.st_size);
        if (more > 0)
            hy3_log(HY3_LOG_WARN,
                    "'%s' grew by %lld byte%s while it was read: only its first %lld are used",
                    source->path, (long long)more, hy3_s(more), (long long)source->size);
        if (*changed < 0 && (more > 0 || mtime_of(&info) != source->mtime_ns))
            *changed = f;
    }
    return HY3_OK;
}

void hy3_sources_free(struct hy3_source *sources, int count)
{
    for (int f = 0; sources && f < count; f++)
        hy3_free(sources[f].path);
    hy3_free(sources);
}

void hy3_source_place(const struct hy3_source *source, int64_t number, char *out, size_t size)
{
    snprintf(out, size, "%s:%s%lld", source->path,
             source->layout == HY3_LAYOUT_LINES ? "" : " item ", (long long)number);
}

hy3_status hy3_cache_directory(const char *cache_dir, const char *output_dir,
                               const char *first_file, char *out, size_t size)
{
    const char *slash;

    if (cache_dir && *cache_dir)
        return hy3_path_format(out, size, "%s", cache_dir);
    if (output_dir && *output_dir) /* not beside the weights, with which it would be published */
        return hy3_path_format(out, size, "%s/cache", output_dir);
    slash = strrchr(first_file, '/');
    if (!slash)
        return hy3_path_format(out, size, ".");
    return hy3_path_format(out, size, "%.*s", slash == first_file ? 1 : (int)(slash - first_file),
                           first_file);
}
