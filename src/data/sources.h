/* SPDX-License-Identifier: Apache-2.0 */
/* sources.h - the JSONL files that a run reads, and where its token files go. */
#pragma once

#include "data/kind.h"

#include <mpi.h>

struct hy3_source {
    char *path;                       /* as given */
    int64_t size, mtime_ns, ctime_ns; /* no program sets the last */
    int64_t layout;                   /* enum hy3_data_layout */
    int64_t sampled;                  /* a hash of 64 blocks of the contents: all of a small file */
};

/* Collective on `comm`. Rank 0 opens every file once, so that a missing one, and one that is no
 * JSON, is reported before any work. Errors: HY3_EIO, HY3_EUSAGE. The caller owns *out
 * (hy3_sources_free). */
hy3_status hy3_sources_stat(MPI_Comm comm, const char *const *files, int count,
                            struct hy3_source **out);
/* Local. Whether a file has another size or time than before: its number in *changed, -1: none. One
 * that grew is warned of. Errors: HY3_EFORMAT if one is smaller. What was removed is no change. */
hy3_status hy3_sources_look_again(const struct hy3_source *sources, int count, int *changed);
void hy3_sources_free(struct hy3_source *sources, int count);

/* Local. Where line or item `number`, from 1, of the file stands: "a.jsonl:3", "a.json: item 3". */
void hy3_source_place(const struct hy3_source *source, int64_t number, char *out, size_t size);

/* Local. Where token files go: cache_dir, else output_dir/cache, else the directory of the first
 * file. NULL: not given. */
hy3_status hy3_cache_directory(const char *cache_dir, const char *output_dir,
                               const char *first_file, char *out, size_t size);
