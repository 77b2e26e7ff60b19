/* SPDX-License-Identifier: Apache-2.0 */
/* sources.c - sizes and times of the files, and the cache directory. */
#include "data/sources.h"

#include "base/file.h"
#include "base/memory.h"
#include "comm/agree.h"
#include "comm/comm.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

static hy3_status stat_one(struct hy3_source *source)
{
    hy3_status status = HY3_OK;
    struct stat info;
    int fd = -1;

    HY3_TRY_DONE(hy3_file_open(source->path, &fd));
    if (fstat(fd, &info) != 0)
        HY3_FAIL_DONE(HY3_EIO, "cannot read '%s': %s", source->path, strerror(errno));
    source->size = info.st_size;
    source->mtime_ns = (int64_t)info.st_mtim.tv_sec * 1000000000 + info.st_mtim.tv_nsec;
done:
    if (fd >= 0)
        close(fd);
    return status;
}

hy3_status hy3_sources_stat(MPI_Comm comm, const char *const *files, int count,
                            struct hy3_source **out)
{
    hy3_status status = HY3_OK;
    struct hy3_source *sources = NULL;
    int64_t *facts = NULL;

    *out = NULL;
    status = hy3_alloc(&sources, (size_t)count, sizeof *sources);
    if (status == HY3_OK)
        status = hy3_alloc(&facts, 2 * (size_t)count, sizeof *facts);
    for (int f = 0; f < count && status == HY3_OK; f++) {
        status = hy3_strdup(files[f], &sources[f].path);
        if (status == HY3_OK && hy3_rank(comm) == 0)
            status = stat_one(&sources[f]);
        facts[2L * f] = sources[f].size;
        facts[2L * f + 1] = sources[f].mtime_ns;
    }
    HY3_AGREE_DONE(comm, status, "examining the data files");
    hy3_broadcast(comm, 0, facts, 2 * (size_t)count * sizeof *facts, "examining the data files");
    for (int f = 0; f < count; f++) {
        sources[f].size = facts[2L * f];
        sources[f].mtime_ns = facts[2L * f + 1];
    }
    *out = HY3_TAKE(sources);
done:
    hy3_sources_free(sources, count);
    hy3_free(facts);
    return status;
}

void hy3_sources_free(struct hy3_source *sources, int count)
{
    for (int f = 0; sources && f < count; f++)
        hy3_free(sources[f].path);
    hy3_free(sources);
}

hy3_status hy3_cache_directory(const char *cache_dir, const char *output_dir,
                               const char *first_file, char *out, size_t size)
{
    const char *directory = cache_dir && *cache_dir ? cache_dir : output_dir, *slash;

    if (directory && *directory)
        return hy3_path_format(out, size, "%s", directory);
    slash = strrchr(first_file, '/');
    if (!slash)
        return hy3_path_format(out, size, ".");
    return hy3_path_format(out, size, "%.*s", slash == first_file ? 1 : (int)(slash - first_file),
                           first_file);
}
