/* SPDX-License-Identifier: Apache-2.0 */
/* items.c - what each portion does to the state, for a beginning outside and inside of a string;
 * then the states follow one from the other. */
#include "data/items.h"

#include "base/file.h"
#include "base/memory.h"
#include "comm/agree.h"
#include "comm/comm.h"
#include "comm/stop.h"

#include <limits.h>
#include <unistd.h>

enum { BLOCK = 1 << 20 };

struct effect { /* of a portion; [0]: it begins outside of a string, [1]: inside */
    int64_t depth[2], lowest[2], ends_inside[2];
    int64_t is_escaped; /* its first byte, if it begins inside */
};

/* Whether an odd number of backslashes stands before `at`. */
static hy3_status find_escape(int fd, const char *path, int64_t at, int64_t *is_escaped)
{
    int64_t count = 0;
    bool ends = false;
    char block[4096];

    while (at > 0 && !ends) {
        int64_t size = at < (int64_t)sizeof block ? at : (int64_t)sizeof block, i = size;

        at -= size;
        HY3_TRY(hy3_file_read_at(fd, block, (size_t)size, at, path));
        while (i > 0 && block[i - 1] == '\\')
            i--;
        count += size - i;
        ends = i > 0;
    }
    *is_escaped = count % 2;
    return HY3_OK;
}

static hy3_status scan(int fd, const struct hy3_source *source, const struct hy3_portion *portion,
                       char *block, struct effect *effect)
{
    struct hy3_item_state states[2] = {{.depth = 0}, {.is_inside = true}};

    HY3_TRY(find_escape(fd, source->path, portion->begin, &effect->is_escaped));
    states[1].is_escaped = effect->is_escaped != 0;
    for (int64_t at = portion->begin; at < portion->end; at += BLOCK) {
        int64_t size = portion->end - at < BLOCK ? portion->end - at : BLOCK;

        HY3_TRY(hy3_stop_check("examining the data files"));
        HY3_TRY(hy3_file_read_at(fd, block, (size_t)size, at, source->path));
        for (int h = 0; h < 2; h++)
            for (int64_t i = 0; i < size; i++) {
                hy3_item_step(&states[h], block[i]);
                if (states[h].depth < effect->lowest[h])
                    effect->lowest[h] = states[h].depth;
            }
    }
    for (int h = 0; h < 2; h++) {
        effect->depth[h] = states[h].depth;
        effect->ends_inside[h] = states[h].is_inside;
    }
    return HY3_OK;
}

static hy3_status scan_own(MPI_Comm comm, const struct hy3_source *sources,
                           const struct hy3_portion *portions, int64_t count,
                           struct effect *effects)
{
    hy3_status status = HY3_OK;
    char *block = NULL;
    int fd = -1, open = -1;

    HY3_TRY_DONE(hy3_alloc(&block, BLOCK, 1));
    for (int64_t p = 0; p < count; p++) {
        const struct hy3_source *source = &sources[portions[p].file];

        if (source->layout == HY3_LAYOUT_LINES ||
            portions[p].piece % hy3_size(comm) != hy3_rank(comm))
            continue;
        if (open != portions[p].file) {
            if (fd >= 0)
                close(fd);
            fd = -1;
            HY3_TRY_DONE(hy3_file_open(source->path, &fd));
            open = portions[p].file;
        }
        HY3_TRY_DONE(scan(fd, source, &portions[p], block, &effects[p]));
    }
done:
    if (fd >= 0)
        close(fd);
    hy3_free(block);
    return status;
}

/* A bracket too many, or one too few, would shift all that follows. */
static hy3_status refuse(const struct hy3_source *source, int64_t at, const char *what)
{
    HY3_FAIL(HY3_EFORMAT, "'%s' is not valid JSON: %s, at or behind byte %lld", source->path, what,
             (long long)at);
}

/* The states before the portions, one from the other. */
static hy3_status chain(const struct hy3_source *sources, struct hy3_portion *portions,
                        int64_t count, const struct effect *effects)
{
    struct hy3_item_state state = {.depth = 0};

    for (int64_t p = 0; p < count; p++) {
        const struct hy3_source *source = &sources[portions[p].file];
        int h = state.is_inside;

        if (source->layout == HY3_LAYOUT_LINES)
            continue;
        portions[p].depth = state.depth;
        portions[p].is_inside = state.is_inside;
        portions[p].is_escaped = state.is_inside && effects[p].is_escaped;
        if (state.depth + effects[p].lowest[h] < 0)
            return refuse(source, portions[p].begin, "a bracket closes nothing");
        state.depth += effects[p].depth[h];
        state.is_inside = effects[p].ends_inside[h] != 0;
        if (portions[p].end == source->size && (state.depth != 0 || state.is_inside))
            return refuse(source, 0, "a bracket or a quote is not closed");
    }
    return HY3_OK;
}

hy3_status hy3_items_locate(MPI_Comm comm, const struct hy3_source *sources,
                            struct hy3_portion *portions, int64_t count)
{
    hy3_status status = HY3_OK;
    struct effect *effects = NULL;
    bool any = false;

    for (int64_t p = 0; p < count; p++)
        any |= sources[portions[p].file].layout != HY3_LAYOUT_LINES;
    if (!any)
        return HY3_OK;
    HY3_AGREE_DONE(comm, hy3_alloc(&effects, (size_t)count, sizeof *effects),
                   "examining the data files");
    HY3_AGREE_DONE(comm, scan_own(comm, sources, portions, count, effects),
                   "examining the data files");
    HY3_ASSERT(count < INT_MAX / (int64_t)(sizeof *effects / 8)); /* of some 65,536 pieces */
    hy3_allreduce_int(comm, (int64_t *)effects, (int)(count * (int64_t)(sizeof *effects / 8)),
                      MPI_SUM, "examining the data files");
    status = chain(sources, portions, count, effects);
done:
    hy3_free(effects);
    return status;
}
