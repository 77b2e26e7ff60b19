/* SPDX-License-Identifier: Apache-2.0 */
/* spool.c - buffered appends to an unlinked file. */
#include "data/spool.h"

#include "base/file.h"
#include "base/memory.h"

#include <errno.h>
#include <unistd.h>

enum { BUFFER = 1 << 20 };

struct hy3_spool {
    int fd;
    int64_t written; /* bytes in the file; more are in the buffer */
    size_t used;
    char *buffer;
    char path[HY3_PATH_MAX]; /* for messages */
};

hy3_status hy3_spool_open(const char *directory, struct hy3_spool **out)
{
    hy3_status status = HY3_OK;
    struct hy3_spool *s = NULL;

    *out = NULL;
    HY3_TRY_DONE(hy3_alloc(&s, 1, sizeof *s));
    s->fd = -1;
    HY3_TRY_DONE(hy3_alloc(&s->buffer, BUFFER, 1));
    HY3_TRY_DONE(hy3_path_format(s->path, sizeof s->path, "%s/.hy3-spool-XXXXXX", directory));
    if ((s->fd = mkstemp(s->path)) < 0)
        HY3_FAIL_DONE(HY3_EIO, "cannot create a file in '%s': %s", directory, strerror(errno));
    unlink(s->path);
    *out = HY3_TAKE(s);
done:
    hy3_spool_close(s);
    return status;
}

void hy3_spool_close(struct hy3_spool *spool)
{
    if (!spool)
        return;
    if (spool->fd >= 0)
        close(spool->fd);
    hy3_free(spool->buffer);
    hy3_free(spool);
}

static hy3_status flush(struct hy3_spool *s)
{
    HY3_TRY(hy3_file_write_at(s->fd, s->buffer, s->used, s->written, s->path));
    s->written += (int64_t)s->used;
    s->used = 0;
    return HY3_OK;
}

hy3_status hy3_spool_append(struct hy3_spool *spool, const void *data, size_t size)
{
    const char *from = data;

    while (size > 0) {
        size_t part = BUFFER - spool->used;

        if (part > size)
            part = size;
        memcpy(spool->buffer + spool->used, from, part);
        spool->used += part;
        from += part;
        size -= part;
        if (spool->used == BUFFER)
            HY3_TRY(flush(spool));
    }
    return HY3_OK;
}

hy3_status hy3_spool_read(struct hy3_spool *spool, void *data, size_t size, int64_t offset)
{
    HY3_TRY(flush(spool));
    return hy3_file_read_at(spool->fd, data, size, offset, spool->path);
}
